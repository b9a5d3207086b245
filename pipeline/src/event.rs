//! What the rest of the centre hears at once, before any commit.

use carebed_contract::command::CommandResult;
use carebed_contract::id::{Area, GatewayId, HomeId};
use carebed_contract::inventory::Inventory;
use carebed_contract::status::Status;
use carebed_contract::time::Timestamp;
use carebed_contract::topic::Topic;

use crate::gap::Gap;
use crate::memory::Rows;

/// Something that came from a home. After a failed commit the same rows come again: consumers are idempotent by
/// (gateway, epoch, lane, seq).
#[derive(Debug, Clone)]
pub enum Event {
    /// A batch was accepted. It will be committed, or sent again by its gateway.
    Accepted {
        /// Who sent it.
        gateway: GatewayId,
        /// Where that gateway was enrolled.
        area: Area,
        /// Its observations, in the order of the pack; may be empty (a heartbeat that only moves `complete`).
        rows: Rows,
        /// The gateway's homes, and up to which event time each is known to be complete once these rows are taken. A call does
        /// not say it: it overtakes routine rows that are on their way to whoever hears this.
        complete: Vec<(HomeId, Option<Timestamp>)>,
    },
    /// An urgent batch that could not be accepted yet (it stands behind a hole, was forked, or bears no labels): it
    /// rings all the same. Its rows come again as [`Event::Accepted`] when they can be accepted.
    Early {
        /// Who sent it.
        gateway: GatewayId,
        /// Where that gateway was enrolled.
        area: Area,
        /// Its observations.
        rows: Rows,
    },
    /// A gateway said how it is, or the broker said that it is gone.
    Status {
        /// Where it came.
        topic: Topic,
        /// How the gateway is.
        status: Status,
    },
    /// A gateway said what is where in its home.
    Inventory {
        /// Where it came.
        topic: Topic,
        /// What is where.
        inventory: Inventory,
    },
    /// What became of a command.
    Result {
        /// Where it came.
        topic: Topic,
        /// What became of it.
        result: CommandResult,
    },
    /// An urgent batch was accepted whose payload nobody can read: it may have been a call.
    Unreadable {
        /// Who sent it.
        gateway: GatewayId,
        /// Where that gateway was enrolled.
        area: Area,
        /// When it came.
        received: Timestamp,
    },
    /// Batches are missing for good, or may be.
    Gap(Gap),
}
