//! What came of asking a device, counted. Pure.

use std::ops::AddAssign;

use super::polled::NoAnswer;
use super::rtu::Failure;
use carebed_device_profiles::modbus::Reject;

/// Requests to one device by what came of them, each attempt counted, since its link told them last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Answered.
    pub answered: u64,
    /// Answered with an exception: the device is there and does not have it.
    pub refused: u64,
    /// Nothing came in time.
    pub timed_out: u64,
    /// Something came that is not the answer: a wrong checksum, noise, somebody else's frame.
    pub damaged: u64,
    /// There was no line or connection to ask over.
    pub unreached: u64,
    /// Bytes on the whole line that no request waited for: late answers, other masters, noise.
    pub drained: u64,
}

impl Tally {
    pub(super) fn count(&mut self, answer: &Result<Vec<u8>, NoAnswer>) {
        let which = match answer {
            Ok(_) => &mut self.answered,
            Err(NoAnswer::Rejected(Reject::Exception(_))) => &mut self.refused,
            Err(NoAnswer::Timeout(_) | NoAnswer::Failed(Failure::Timeout(_))) => &mut self.timed_out,
            Err(NoAnswer::Rejected(_) | NoAnswer::Failed(_)) => &mut self.damaged,
            Err(NoAnswer::Line(_) | NoAnswer::Busy | NoAnswer::Broken(_)) => &mut self.unreached,
        };
        *which += 1;
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.answered += more.answered;
        self.refused += more.refused;
        self.timed_out += more.timed_out;
        self.damaged += more.damaged;
        self.unreached += more.unreached;
        self.drained += more.drained;
    }
}
