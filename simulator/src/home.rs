//! A simulated home on a TCP port: a resident's life played against a clock on a Modbus TCP board.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::board::{Board, OUTPUTS};
use crate::chance::Chance;
use crate::fact::{Change, Fact, Label, Room};
use crate::habits::Habits;
use crate::ledger::{Ledger, Shown, Told};
use crate::resident::{Order, Resident, State};
use crate::wire::{self, Request};
use crate::wiring::Wiring;

/// Most clients of one board at a time. One more is accepted and closed at once, as small boards do.
pub const CONNECTIONS_MAX: usize = 8;

/// Changes that may wait for another device of the home; then the oldest are lost to it.
const CHANGES_MAX: usize = 256;

/// What a simulated home is made of.
#[derive(Debug, Clone)]
pub struct SimulatedHomeConfig {
    /// Its id, for logs.
    pub home: HomeId,
    /// Seed of the person's life and of the board's garbage.
    pub seed: u64,
    /// The clock that the life is played against.
    pub clock: Arc<dyn Clock>,
    /// Where the board listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The board's Modbus unit. It is silent to requests for others.
    pub unit: u8,
    /// The person's habits.
    pub habits: Habits,
    /// What is wired to the board.
    pub wiring: Wiring,
}

impl SimulatedHomeConfig {
    /// A person of this seed in Shanghai's time zone, the standard wiring, unit 1, a free port on loopback.
    #[must_use]
    pub fn new(home: HomeId, seed: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            home,
            seed,
            clock,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            unit: 1,
            habits: Habits::of_seed(seed, chrono_tz::Asia::Shanghai),
            wiring: Wiring::standard(),
        }
    }
}

/// The board's port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {addr} for the simulated board: is another program using the port?")]
pub struct ListenError {
    /// The address.
    pub addr: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// How long a call button stays pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Until a client has read it: a pull cord that the person resets when the lamp answers. The recommended fitting.
    UntilPolled,
    /// Until [`SimulatedHome::reset_call`]: a latching pull cord that only a responder resets.
    UntilReset,
    /// So long: a momentary button. Nobody knows of it when nobody asks in that time.
    For(Duration),
}

/// How many requests the board got, by what it did with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Answered with data.
    pub answered: u64,
    /// Answered with a Modbus exception.
    pub refused: u64,
    /// Not answered: told to be silent, or for another unit.
    pub ignored: u64,
    /// Answered with garbage.
    pub garbled: u64,
}

/// What really happened in a home, to compare the table with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    /// Every level that an input took, oldest first; the first per input is its level at the start.
    pub shown: Vec<Shown>,
    /// How many older levels were forgotten (see [`crate::ledger::LENGTH_MAX`]).
    pub forgotten: u64,
    /// What was ordered and when it happened.
    pub labels: Vec<Label>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    silent: bool,
    slow: Duration,
    garbage: bool,
}

#[derive(Debug)]
struct Inner {
    resident: Resident,
    wiring: Wiring,
    board: Board,
    ledger: Ledger,
    release_when_polled: bool,
    faults: Faults,
    counts: Counts,
    chance: Chance,
    /// Tells other devices of the home what changed.
    changes: broadcast::Sender<Change>,
}

impl Inner {
    /// Lives on until `now`, and puts what changed on the board's inputs.
    fn live(&mut self, now: Timestamp) {
        for change in self.resident.until(now) {
            // Nobody listens in a home whose board is all there is.
            let _unheard = self.changes.send(change);
            for (input, line) in self.wiring.lines().filter(|(_, line)| line.fact == change.fact) {
                let on = change.on != line.invert;
                if let Some(level) = self.board.inputs.get_mut(input) {
                    *level = on;
                }
                self.ledger.show(change.at, input, on);
            }
        }
    }

    /// Whether a client has read that the button is pressed.
    fn call_is_received(&self) -> bool {
        let mut calls = self.wiring.lines().filter(|(_, line)| line.fact == Fact::CallPressed);
        self.resident.is(Fact::CallPressed)
            && calls.any(|(input, _)| self.ledger.current(input).is_some_and(|shown| shown.received.is_some()))
    }
}

/// What is sent for a request, after how long, and what it told.
struct Reply {
    bytes: Vec<u8>,
    after: Duration,
    told: Told,
}

#[derive(Debug)]
struct Shared {
    home: HomeId,
    unit: u8,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    /// Rings when an order has changed what comes next.
    ordered: Notify,
    coils: watch::Sender<[bool; OUTPUTS]>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic of another test thread must not hide behind this one's.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: Order, then: Option<(Duration, Order)>) {
        let now = self.clock.now();
        let mut inner = self.lock();
        inner.resident.order(now, order);
        if let Some((after, order)) = then {
            inner.resident.order(now + after, order);
        }
        inner.live(now);
        drop(inner);
        self.ordered.notify_one();
    }

    /// Marks what the client has got, and resets a cord that waited for that.
    fn received(&self, told: Told) {
        let now = self.clock.now();
        let mut inner = self.lock();
        inner.ledger.received(told, now);
        if inner.release_when_polled && inner.call_is_received() {
            inner.release_when_polled = false;
            inner.resident.order(now, Order::Release);
            inner.live(now);
        }
    }

    fn reply(&self, request: &Request) -> Option<Reply> {
        let now = self.clock.now();
        let mut inner = self.lock();
        inner.live(now);
        let Faults { silent, slow, garbage } = inner.faults;
        // Modbus TCP devices also answer unit 0 and 255; a board on a bus behind a converter does not, and neither
        // does this one.
        let answer = if silent || request.unit != self.unit { None } else { inner.board.answer(&request.pdu) };
        let Some(answer) = answer else {
            inner.counts.ignored += 1;
            return None;
        };
        let outputs = inner.board.outputs;
        self.coils.send_if_modified(|seen| std::mem::replace(seen, outputs) != outputs);
        if garbage {
            inner.counts.garbled += 1;
            let bytes = wire::garbage(&mut inner.chance, request, &answer.pdu);
            return Some(Reply { bytes, after: slow, told: Told::default() });
        }
        if answer.pdu.first().is_some_and(|function| function & 0x80 != 0) {
            inner.counts.refused += 1;
        } else {
            inner.counts.answered += 1;
        }
        let told = inner.ledger.answered(answer.told, now);
        Some(Reply { bytes: wire::frame(request.transaction, request.unit, &answer.pdu), after: slow, told })
    }
}

/// A home that can be polled, ordered about and broken. Dropping it closes the port and ends the life.
#[derive(Debug)]
pub struct SimulatedHome {
    shared: Arc<Shared>,
    addr: SocketAddr,
    server: tokio::sync::Mutex<Option<Server>>,
    life: Shutdown,
}

#[derive(Debug)]
struct Server {
    stop: Shutdown,
    task: JoinHandle<()>,
}

impl SimulatedHome {
    /// Opens the board's port and lets the person live on from the clock's present.
    pub async fn start(config: SimulatedHomeConfig) -> Result<Self, ListenError> {
        let now = config.clock.now();
        let resident = Resident::new(config.habits, config.seed, now);
        let board = Board { inputs: config.wiring.levels(&resident), ..Board::default() };
        let mut ledger = Ledger::default();
        for ((input, _), on) in config.wiring.lines().map(|line| (line, board.inputs.get(line.0).copied())) {
            ledger.show(now, input, on.unwrap_or_default());
        }
        let shared = Arc::new(Shared {
            home: config.home,
            unit: config.unit,
            clock: config.clock,
            inner: Mutex::new(Inner {
                resident,
                wiring: config.wiring,
                board,
                ledger,
                release_when_polled: false,
                faults: Faults::default(),
                counts: Counts::default(),
                chance: Chance::new(config.seed),
                changes: broadcast::Sender::new(CHANGES_MAX),
            }),
            ordered: Notify::new(),
            coils: watch::Sender::new([false; OUTPUTS]),
        });
        let listener = listen(config.listen).await?;
        let addr = listener.local_addr().map_err(|source| ListenError { addr: config.listen, source })?;
        let life = Shutdown::new();
        let home = Self { shared, addr, server: tokio::sync::Mutex::new(None), life };
        tokio::spawn(live(Arc::clone(&home.shared), home.life.clone()));
        home.serve(listener, &mut *home.server.lock().await);
        Ok(home)
    }

    /// Where the board listens; the same after [`Self::power_off`] and [`Self::power_on`].
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Calls for help.
    pub fn press(&self, hold: Hold) {
        self.shared.lock().release_when_polled = hold == Hold::UntilPolled;
        let then = if let Hold::For(length) = hold { Some((length, Order::Release)) } else { None };
        self.shared.order(Order::Press, then);
    }

    /// Resets the call button or cord.
    pub fn reset_call(&self) {
        self.shared.order(Order::Release, None);
    }

    /// The person gets out of bed, if in it, and keeps out until told to carry on or until morning.
    pub fn stay_out(&self) {
        self.shared.order(Order::StayOutOfBed, None);
    }

    /// The person leaves the home and comes back after so long.
    pub fn leave_home(&self, length: Duration) {
        self.shared.order(Order::LeaveHome(length), None);
    }

    /// The person goes to a room and falls there; nothing more is felt until they are told to carry on.
    pub fn fall(&self, room: Room) {
        self.shared.order(Order::Fall(room), None);
    }

    /// Ends a fall or a stay out of bed.
    pub fn carry_on(&self) {
        self.shared.order(Order::CarryOn, None);
    }

    /// Moves a contact on an input that no fact of the resident's life is wired to. Other inputs stay as they are.
    pub fn switch(&self, input: usize, on: bool) {
        let now = self.shared.clock.now();
        let mut inner = self.shared.lock();
        let is_spare = inner.wiring.lines().all(|(wired, _)| wired != input);
        if let Some(level) = inner.board.inputs.get_mut(input).filter(|_| is_spare) {
            *level = on;
            inner.ledger.show(now, input, on);
        }
    }

    /// Where the person is.
    #[must_use]
    pub fn state(&self) -> State {
        let now = self.shared.clock.now();
        let mut inner = self.shared.lock();
        inner.live(now);
        inner.resident.state()
    }

    /// Whether something is so now.
    #[must_use]
    pub fn is(&self, fact: Fact) -> bool {
        let now = self.shared.clock.now();
        let mut inner = self.shared.lock();
        inner.live(now);
        inner.resident.is(fact)
    }

    /// What changes from now on, for devices beside the board.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.shared.lock().changes.subscribe()
    }

    /// What happened so far.
    #[must_use]
    pub fn truth(&self) -> Truth {
        let inner = self.shared.lock();
        Truth {
            shown: inner.ledger.shown().copied().collect(),
            forgotten: inner.ledger.forgotten(),
            labels: inner.resident.labels().to_vec(),
        }
    }

    /// How the board's outputs are switched, now and from now on: the lamp.
    #[must_use]
    pub fn coils(&self) -> watch::Receiver<[bool; OUTPUTS]> {
        self.shared.coils.subscribe()
    }

    /// What the board did with requests so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts
    }

    /// The board accepts connections and requests, and answers none.
    pub fn silent(&self, on: bool) {
        self.shared.lock().faults.silent = on;
    }

    /// Every answer comes so much later (by the machine's clock: this is a fault of the wire), with the levels at the
    /// time of the request. Zero ends it.
    pub fn slow(&self, delay: Duration) {
        self.shared.lock().faults.slow = delay;
    }

    /// The board sends garbage in place of every answer: noise, half frames, frames that answer something else.
    pub fn garbage(&self, on: bool) {
        self.shared.lock().faults.garbage = on;
    }

    /// Takes the board off the network: the port is closed, and so is every connection. The person lives on.
    pub async fn power_off(&self) {
        if let Some(server) = self.server.lock().await.take() {
            server.stop.cancel();
            if let Err(error) = server.task.await {
                tracing::error!(home = %self.shared.home, %error, "the simulated board ended badly");
            }
        }
    }

    /// Puts the board back on the same port, outputs off as after a loss of power.
    pub async fn power_on(&self) -> Result<(), ListenError> {
        let mut server = self.server.lock().await;
        if server.is_none() {
            let listener = listen(self.addr).await?;
            self.shared.lock().board.outputs = [false; OUTPUTS];
            self.shared.coils.send_replace([false; OUTPUTS]);
            self.serve(listener, &mut server);
        }
        Ok(())
    }

    fn serve(&self, listener: TcpListener, server: &mut Option<Server>) {
        let stop = self.life.child_token();
        let task = tokio::spawn(serve(listener, Arc::clone(&self.shared), stop.clone()));
        *server = Some(Server { stop, task });
    }
}

impl Drop for SimulatedHome {
    fn drop(&mut self) {
        self.life.cancel();
    }
}

async fn listen(addr: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(addr).await.map_err(|source| ListenError { addr, source })
}

/// Lets the person live as the clock goes.
async fn live(shared: Arc<Shared>, life: Shutdown) {
    loop {
        let next = {
            let now = shared.clock.now();
            let mut inner = shared.lock();
            inner.live(now);
            inner.resident.next_at()
        };
        let wait = async {
            match next {
                Some(at) => shared.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = life.cancelled() => return,
            () = shared.ordered.notified() => {}
            () = wait => {}
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: Shutdown) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(converse(stream, Arc::clone(&shared)));
                }
                Ok((_, peer)) => tracing::debug!(home = %shared.home, %peer, "the simulated board has no free connection"),
                Err(error) => {
                    tracing::warn!(home = %shared.home, %error, "the simulated board could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Answers one client until it goes.
async fn converse(mut stream: TcpStream, shared: Arc<Shared>) {
    let ended: io::Result<()> = async {
        stream.set_nodelay(true)?;
        let mut told = Told::default();
        loop {
            let request = wire::read(&mut stream).await?;
            shared.received(std::mem::take(&mut told));
            let Some(reply) = shared.reply(&request) else { continue };
            if !reply.after.is_zero() {
                tokio::time::sleep(reply.after).await;
            }
            stream.write_all(&reply.bytes).await?;
            told = reply.told;
        }
    }
    .await;
    if let Err(error) = ended {
        tracing::debug!(home = %shared.home, %error, "a client left the simulated board");
    }
}
