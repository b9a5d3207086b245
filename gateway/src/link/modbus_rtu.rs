//! Modbus RTU on a line: carries bytes between the line and the [`Transactions`], which decide.

use std::time::Duration;

use carebed_device_profiles::modbus::Request;
use carebed_device_profiles::profile::{Parity, Serial};
use tokio::time::{Instant, sleep_until};

use super::address::Address;
use super::line::Line;
use super::polled::NoAnswer;
use super::rtu::{Ask, Timing, Transactions};

/// How long a request may wait for a line that does not fall silent.
const BUSY_MAX: Duration = Duration::from_secs(1);
/// Bytes taken off the line at once.
const CHUNK: usize = 512;

pub(super) struct ModbusRtu {
    line: Line,
    transactions: Transactions,
    start: Instant,
}

impl ModbusRtu {
    /// On a closed line; `echo`: whether the adapter gives back what is sent, if that is known.
    pub(super) fn new(address: Address, settings: Serial, echo: Option<bool>, start: Instant) -> Self {
        let Serial { baud, data_bits, parity, stop_bits } = settings;
        let bits = 1 + u32::from(data_bits) + u32::from(parity != Parity::None) + u32::from(stop_bits);
        let timing = Timing::new(baud, bits);
        let timing = if matches!(address, Address::SerialServer { .. }) { timing.over_network() } else { timing };
        Self { line: Line::new(address), transactions: Transactions::new(timing, echo), start }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn ready_at(&self, unit: u8, request: Request) -> Duration {
        self.transactions.ready_at(unit, request, self.now())
    }

    pub(super) fn open_at_once(&mut self) {
        self.line.open_at_once();
    }

    /// How many bytes came that no request waited for.
    pub(super) fn drained(&self) -> u64 {
        self.transactions.drained()
    }

    /// Takes off the line what nobody asked for, for as long as it is let.
    pub(super) async fn idle(&mut self) {
        let mut bytes = [0; CHUNK];
        loop {
            if let Ok(n_bytes) = self.line.read(&mut bytes).await {
                let now = self.now();
                // Nothing is asked now, so nothing is answered.
                let _none = self.transactions.received(bytes.get(..n_bytes).unwrap_or_default(), now);
            }
        }
    }

    /// Opens the line if it is closed, and listens for as long as answers to what was asked before may come.
    pub(super) async fn open(&mut self) -> Result<(), NoAnswer> {
        if self.line.open().await? {
            self.transactions.reset(self.now());
            self.listen_until(self.transactions.quiet_at()).await?;
        }
        Ok(())
    }

    pub(super) async fn ask(&mut self, ask: Ask, wake: Option<&(Vec<u8>, Duration)>) -> Result<Vec<u8>, NoAnswer> {
        self.open().await?;
        if let Some((bytes, pause)) = wake {
            self.line.send(bytes).await?;
            self.listen_until(self.now() + *pause).await?;
        }
        let asked = self.now();
        let sent = loop {
            let now = self.now();
            if let Some(sent) = self.transactions.begin(ask, now) {
                break sent;
            }
            if now > asked + BUSY_MAX {
                return Err(NoAnswer::Busy);
            }
            let ready = self.transactions.ready_at(ask.unit, ask.request, now);
            self.listen_until(ready.min(asked + BUSY_MAX + Duration::from_millis(1))).await?;
        };
        let sent = self.line.send(&sent).await;
        let mut bytes = [0; CHUNK];
        let outcome = match sent {
            Err(error) => Err(error),
            Ok(()) => loop {
                let due = self.transactions.due().unwrap_or_default();
                let outcome = tokio::select! {
                    read = self.line.read(&mut bytes) => match read {
                        Ok(n_bytes) => {
                            let now = self.now();
                            self.transactions.received(bytes.get(..n_bytes).unwrap_or_default(), now)
                        }
                        Err(error) => break Err(error),
                    },
                    () = sleep_until(self.start + due) => self.transactions.tick(self.now()),
                };
                if let Some(outcome) = outcome {
                    break Ok(outcome);
                }
            },
        };
        match outcome {
            Ok(outcome) => Ok(outcome?),
            Err(error) => {
                self.transactions.reset(self.now());
                Err(error.into())
            }
        }
    }

    /// Throws away what comes until then.
    async fn listen_until(&mut self, until: Duration) -> Result<(), NoAnswer> {
        let mut bytes = [0; CHUNK];
        let deadline = self.start + until;
        loop {
            tokio::select! {
                biased;
                read = self.line.read(&mut bytes) => {
                    let n_bytes = read?;
                    let now = self.now();
                    let _none = self.transactions.received(bytes.get(..n_bytes).unwrap_or_default(), now);
                }
                () = sleep_until(deadline) => return Ok(()),
            }
            if Instant::now() >= deadline {
                return Ok(());
            }
        }
    }
}
