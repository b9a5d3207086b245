//! A board and a centre for whole-gateway tests: a real Modbus TCP server and a scripted MQTT 5 endpoint, both on port 0.

use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use carebed_contract::digest::Digest;
use carebed_contract::labels::{Labels, Lane};
use carebed_contract::pack::Pack;
use carebed_contract::receipt::Receipt;
use carebed_contract::time::Timestamp;
use carebed_contract::topic::{Channel, Topic};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, LastWill, Packet, PingResp, PubAck, Publish, SubAck, SubscribeReasonCode,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_modbus::prelude::{ExceptionCode, Request, Response};
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};

/// How long a test waits for anything before it fails.
const PATIENCE: Duration = Duration::from_secs(8);

/// The board's terminals.
#[derive(Debug, Default)]
pub(crate) struct Terminals {
    pub(crate) inputs: u8,
    pub(crate) coils: u8,
    /// Answers every read with this many inputs instead of eight.
    pub(crate) answers_with: Option<usize>,
    /// Answers nothing but exceptions.
    pub(crate) refuses: bool,
    /// How often it did.
    pub(crate) refused: u32,
    /// How often the inputs were read; tests set it back.
    pub(crate) reads: u32,
    /// How often its button was pressed, as the module counts it.
    pub(crate) presses: u16,
    /// What was written to its registers, in order.
    pub(crate) written: Vec<(u16, u16)>,
}

/// A Waveshare board.
#[derive(Clone)]
pub(crate) struct Board {
    pub(crate) address: SocketAddr,
    pub(crate) terminals: Arc<Mutex<Terminals>>,
}

impl tokio_modbus::server::Service for Board {
    type Request = Request<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        let mut terminals = self.terminals.lock().unwrap();
        ready(match request {
            _ if terminals.refuses => {
                terminals.refused += 1;
                Err(ExceptionCode::ServerDeviceBusy)
            }
            Request::ReadDiscreteInputs(0, 8) => {
                terminals.reads += 1;
                let inputs = terminals.inputs;
                let n_inputs = terminals.answers_with.unwrap_or(8);
                Ok(Response::ReadDiscreteInputs((0..n_inputs).map(|n| inputs >> (n % 8) & 1 == 1).collect()))
            }
            Request::ReadInputRegisters(464, 1) => {
                terminals.reads += 1;
                Ok(Response::ReadInputRegisters(vec![terminals.presses]))
            }
            Request::WriteSingleRegister(register @ 9..17, value) => {
                terminals.written.push((register, value));
                Ok(Response::WriteSingleRegister(register, value))
            }
            Request::WriteSingleCoil(coil @ 0..8, value) => {
                let bit = 1 << coil;
                terminals.coils = if value { terminals.coils | bit } else { terminals.coils & !bit };
                Ok(Response::WriteSingleCoil(coil, value))
            }
            _ => Err(ExceptionCode::IllegalDataAddress),
        })
    }
}

impl Board {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let board = Self { address: listener.local_addr().unwrap(), terminals: Arc::default() };
        let service = board.clone();
        tokio::spawn(async move {
            let accept = |stream, address| {
                let service = service.clone();
                async move { accept_tcp_connection(stream, address, move |_| Ok(Some(service.clone()))) }
            };
            Server::new(listener).serve(&accept, drop).await
        });
        board
    }

    /// Waits until the terminals are so.
    pub(crate) async fn until(&self, want: impl Fn(&Terminals) -> bool + Send + Sync) {
        let wanted = async {
            while !want(&self.terminals.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, wanted).await.expect("the terminals stay otherwise");
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Terminals)) {
        change(&mut self.terminals.lock().unwrap());
    }
}

/// Hears what is published on one topic of a home's broker.
pub(crate) struct Ears {
    events: rumqttc::EventLoop,
}

impl Ears {
    /// Returns when the broker has taken the subscription.
    pub(crate) async fn at(broker: SocketAddr, topic: &str) -> Self {
        let listening = async {
            loop {
                let options = rumqttc::MqttOptions::new("ears", broker.ip().to_string(), broker.port());
                let (client, mut events) = rumqttc::AsyncClient::new(options, 8);
                client.try_subscribe(topic, rumqttc::QoS::AtLeastOnce).unwrap();
                loop {
                    match events.poll().await {
                        Ok(rumqttc::Event::Incoming(rumqttc::Packet::SubAck(_))) => return Self { events },
                        Ok(_) => {}
                        Err(_) => break,
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, listening).await.expect("no broker in the home")
    }

    /// The next payload.
    pub(crate) async fn next(&mut self) -> String {
        let heard = async {
            loop {
                if let rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) = self.events.poll().await.unwrap() {
                    return String::from_utf8_lossy(&publish.payload).into_owned();
                }
            }
        };
        timeout(PATIENCE, heard).await.expect("nobody publishes")
    }
}

/// What the endpoint saw.
#[derive(Debug)]
pub(crate) enum Seen {
    Connected(LastWill),
    Published(Publish),
    /// The connection ended; `goodbye`: as MQTT wants it, so that no last will is told.
    Disconnected {
        goodbye: bool,
    },
}

enum Order {
    Publish(String, Vec<u8>),
    Cut,
}

/// An MQTT 5 endpoint that serves one client at a time and lets the test be the centre.
pub(crate) struct Centre {
    pub(crate) address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
    orders: mpsc::UnboundedSender<Order>,
    area_and_gateway: (String, String),
    /// Whether every routine batch gets a receipt as soon as it comes; without any, the window soon closes.
    pub(crate) gives_receipts: bool,
}

/// One batch as it came.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) labels: Labels,
    pub(crate) pack: Pack,
    pub(crate) digest: Digest,
}

impl Came {
    /// `device value quality` of each record.
    pub(crate) fn rows(&self) -> Vec<String> {
        let row =
            |r: &carebed_contract::record::Record| format!("{} {:?} {}", r.series.device, r.value.number(), r.quality);
        self.pack.records.iter().map(row).collect()
    }
}

impl Centre {
    pub(crate) async fn start(area: &str, gateway: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen_sender, seen) = mpsc::unbounded_channel();
        let (orders, mut orders_receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let goodbye = serve(stream, &seen_sender, &mut orders_receiver).await;
                let _over = seen_sender.send(Seen::Disconnected { goodbye });
            }
        });
        Self { address, seen, orders, area_and_gateway: (area.to_owned(), gateway.to_owned()), gives_receipts: true }
    }

    pub(crate) async fn next(&mut self) -> Seen {
        let seen = timeout(PATIENCE, self.seen.recv()).await.expect("the gateway says nothing").unwrap();
        if let Seen::Published(publish) = &seen {
            let is_batch = publish.properties.as_ref().is_some_and(|p| p.correlation_data.is_some());
            let batch = (self.gives_receipts && is_batch).then(|| came(publish));
            if let Some(batch) = batch.filter(|batch| batch.labels.lane == Lane::Routine) {
                self.receipt(&batch);
            }
        }
        seen
    }

    /// Waits for something published on a channel that `want` takes, passing over everything else.
    pub(crate) async fn wait<T>(&mut self, channel: Channel, mut want: impl FnMut(&Publish) -> Option<T> + Send) -> T {
        let wanted = async {
            loop {
                let Seen::Published(publish) = self.next().await else { continue };
                let topic = Topic::parse(std::str::from_utf8(&publish.topic).unwrap()).unwrap();
                let wanted = if topic.channel == channel { want(&publish) } else { None };
                if let Some(wanted) = wanted {
                    return wanted;
                }
            }
        };
        timeout(PATIENCE, wanted).await.expect("the gateway says other things")
    }

    /// Waits for JSON on a channel that `want` accepts.
    pub(crate) async fn json(
        &mut self,
        channel: Channel,
        want: impl Fn(&serde_json::Value) -> bool + Send,
    ) -> serde_json::Value {
        let read = move |publish: &Publish| serde_json::from_slice(&publish.payload).ok().filter(|json| want(json));
        self.wait(channel, read).await
    }

    /// Waits for a batch of a lane with records.
    pub(crate) async fn batch(&mut self, lane: Lane) -> Came {
        self.wait(Channel::Batch(lane), |publish| Some(came(publish)).filter(|came| !came.pack.records.is_empty()))
            .await
    }

    pub(crate) fn send(&self, channel: Channel, payload: Vec<u8>) {
        let (area, gateway) = &self.area_and_gateway;
        let topic = Topic::new(area.parse().unwrap(), gateway.parse().unwrap(), channel).to_string();
        assert!(self.orders.send(Order::Publish(topic, payload)).is_ok());
    }

    pub(crate) fn receipt(&self, came: &Came) {
        self.receipt_at(came, Timestamp::from_millis(0));
    }

    /// A receipt of a centre whose clock shows this.
    pub(crate) fn receipt_at(&self, came: &Came, centre_time: Timestamp) {
        let Labels { epoch, lane, seq, .. } = came.labels;
        let receipt = Receipt { epoch, lane, next: seq + 1, digest: came.digest, centre_time };
        self.send(Channel::Receipt, receipt.encode());
    }

    pub(crate) fn cut(&self) {
        assert!(self.orders.send(Order::Cut).is_ok());
    }
}

pub(crate) fn came(publish: &Publish) -> Came {
    let properties = publish.properties.clone().unwrap();
    let labels = Labels::decode(&properties.correlation_data.unwrap()).unwrap();
    let content = properties.content_type.unwrap();
    let Labels { epoch, lane, seq, prev, .. } = labels;
    let digest = Digest::of_batch(epoch, lane, seq, prev, &content, &publish.payload);
    Came { labels, pack: Pack::decode(&content, &publish.payload).unwrap(), digest }
}

async fn serve(
    mut stream: TcpStream,
    seen: &mpsc::UnboundedSender<Seen>,
    orders: &mut mpsc::UnboundedReceiver<Order>,
) -> bool {
    let (mut inbox, mut pkid) = (BytesMut::new(), 0);
    loop {
        let mut out = BytesMut::new();
        loop {
            let packet = match Packet::read(&mut inbox, None) {
                Ok(packet) => packet,
                // rumqttc does not read the DISCONNECT without a reason that it writes itself.
                Err(rumqttc::v5::mqttbytes::Error::PayloadRequired) => return true,
                Err(_) => break,
            };
            let answer = match packet {
                Packet::Connect(_, will, _) => {
                    // Without a last will it is no gateway, but somebody who only looks whether there is a broker.
                    if let Some(will) = will {
                        let _over = seen.send(Seen::Connected(will));
                    }
                    let code = ConnectReturnCode::Success;
                    Some(Packet::ConnAck(ConnAck { session_present: false, code, properties: None }))
                }
                Packet::Subscribe(subscribe) => {
                    let return_codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce); subscribe.filters.len()];
                    Some(Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None }))
                }
                Packet::Publish(publish) => {
                    let answer = PubAck::new(publish.pkid, None);
                    let _over = seen.send(Seen::Published(publish));
                    Some(Packet::PubAck(answer))
                }
                Packet::PingReq(_) => Some(Packet::PingResp(PingResp)),
                Packet::Disconnect(_) => return true,
                _ => None,
            };
            if let Some(answer) = answer {
                answer.write(&mut out, None).unwrap();
            }
        }
        if stream.write_all(&out).await.is_err() {
            return false;
        }
        tokio::select! {
            read = stream.read_buf(&mut inbox) => if !matches!(read, Ok(1..)) { return false },
            order = orders.recv() => match order {
                Some(Order::Publish(topic, payload)) => {
                    pkid += 1;
                    let mut publish = Publish::new(topic, QoS::AtLeastOnce, Bytes::from(payload), None);
                    publish.pkid = pkid;
                    let mut out = BytesMut::new();
                    Packet::Publish(publish).write(&mut out, None).unwrap();
                    let _cut = stream.write_all(&out).await;
                }
                Some(Order::Cut) | None => return false,
            },
        }
    }
}
