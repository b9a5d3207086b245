"""A Modbus server by pymodbus: an input board (unit 1) and a room sensor (unit 2).

python server.py tcp|rtu-tcp     listens on a free port of loopback and prints it
python server.py rtu PATH        serves a serial port and prints "ready"
"""

import asyncio
import sys

from pymodbus import FramerType
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusSerialServer, ModbusTcpServer

# A block that begins at 1 holds what is at address 0 on the wire.
BOARD = ModbusDeviceContext(
    di=ModbusSequentialDataBlock(1, [True] + [False] * 7),
    co=ModbusSequentialDataBlock(1, [False] * 8),
)
CLIMATE = ModbusDeviceContext(ir=ModbusSequentialDataBlock(1, [0, 215, 480]))


async def main(mode, path=None):
    context = ModbusServerContext(devices={1: BOARD, 2: CLIMATE})
    if mode == "rtu":
        server = ModbusSerialServer(context, framer=FramerType.RTU, port=path, baudrate=9600)
        await server.listen()
        print("ready", flush=True)
    else:
        framer = FramerType.RTU if mode == "rtu-tcp" else FramerType.SOCKET
        server = ModbusTcpServer(context, framer=framer, address=("127.0.0.1", 0))
        await server.listen()
        print(server.transport.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
