"""What one would write in an afternoon: paho-mqtt, cbor2, pyarrow and deltalake in the place of the centre.

Usage: python peer.py TABLE PORT     subscribes, appends to a Delta table, receipts what it has appended
       python peer.py TABLE          prints how many rows the table has

It takes the same packs and writes the same columns, once a second or every 100,000 rows, and acknowledges each gateway's
newest pack afterwards. It checks nothing: no order, no gaps, no duplicates, no digests, no fsync.
"""

import queue
import sys
import threading
import time

import cbor2
import paho.mqtt.client as mqtt
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

try:
    from compression import zstd

    decompress = zstd.decompress
except ImportError:
    decompress = lambda data: pa.Codec("zstd").decompress(data, content_size(data), asbytes=True)  # noqa: E731

ROWS_MAX = 100_000
SCHEMA = pa.schema(
    [(name, pa.string()) for name in "area home_id bed_id device_id quantity unit quality clock_quality".split()]
    + [("gateway_id", pa.string()), ("epoch", pa.string()), ("lane", pa.string()), ("seq", pa.int64()), ("boot", pa.int64())]
    + [(name, pa.timestamp("ms", "UTC")) for name in ("event_time", "received_time")]
    + [("value", pa.float64()), ("event_day", pa.date32())]
)
UNITS = {"heart_rate": "/min", "respiratory_rate": "/min", "bed_occupancy": "1", "battery": "%", "signal": "dB[mW]"}


def content_size(data):
    """Bytes of a zstd frame once decompressed, from its header (RFC 8878 §3.1.1.1)."""
    kind, single = data[4] >> 6, data[4] >> 5 & 1
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[data[4] & 3]
    size = (1 if single else 0, 2, 4, 8)[kind]
    value = int.from_bytes(data[at : at + size], "little")
    return value + 256 if size == 2 else value


def rows(message, received):
    """The rows of one pack."""
    _, _, area, gateway, _ = message.topic.split("/")
    labels = cbor2.loads(message.properties.CorrelationData)
    payload = message.payload
    if message.properties.ContentType.endswith("zstd"):
        payload = decompress(payload)
    name, base, boot = "", 0.0, None
    for record in cbor2.loads(payload):
        name, base = record.get(-2, name), record.get(-3, base)
        boot = record.get("boot", boot)
        home, bed, device, quantity = (name + record.get(0, "")).split("/")
        at = round((base + record.get(6, 0.0)) * 1000)
        yield (
            area, home, bed, device, quantity, UNITS.get(quantity, ""), "good", "synchronised",
            gateway, f"{labels[1]:016x}", "routine", labels[3], boot, at, received, float(record[2]), at // 86_400_000,
        )


def main():
    table = sys.argv[1]
    if len(sys.argv) == 2:
        print(DeltaTable(table).to_pyarrow_dataset().count_rows())
        return
    messages = queue.Queue(maxsize=10_000)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "peer", protocol=mqtt.MQTTv5)
    client.on_message = lambda _client, _data, message: messages.put(message)
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", int(sys.argv[2]))
    client.subscribe("carebed/v1/+/+/routine", qos=1)
    client.loop_start()
    subscribed.wait()
    print("listening", flush=True)
    while True:
        waiting, newest, since = [], {}, time.monotonic()
        while len(waiting) < ROWS_MAX and (not waiting or time.monotonic() - since < 1.0):
            try:
                message = messages.get(timeout=0.1)
            except queue.Empty:
                continue
            waiting.extend(rows(message, int(time.time() * 1000)))
            labels = cbor2.loads(message.properties.CorrelationData)
            newest[message.topic] = (labels[1], labels[3] + 1)
        columns = list(zip(*waiting))
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA)]
        write_deltalake(table, pa.Table.from_arrays(arrays, schema=SCHEMA), mode="append", partition_by=["event_day"])
        for topic, (epoch, following) in newest.items():
            receipt = cbor2.dumps([1, epoch, 1, following, bytes(32), int(time.time() * 1000)])
            client.publish(topic.replace("/routine", "/receipt"), receipt, qos=1, properties=Properties(PacketTypes.PUBLISH))


if __name__ == "__main__":
    main()
