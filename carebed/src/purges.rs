//! Orders to gateways to empty their spools of what is erased. One that is not connected hears nothing: it is ordered again
//! whenever it says how it is, until it answers.

use std::collections::BTreeSet;
use std::time::Duration;

use carebed_contract::command::{ACTION_PURGE, Command, CommandResult, Outcome, Purge, SPOOL};
use carebed_contract::id::{DeviceId, GatewayId, HomeId};
use carebed_contract::time::Timestamp;
use carebed_pipeline::store::{Erasure, Erasures};

/// How long an order may be under way. A gateway carries it out however late it comes.
const ORDERED: Duration = Duration::from_secs(3_600);
/// How orders are named, before the name of the erasure.
const PREFIX: &str = "purge-";

/// The order to carry out an erasure.
pub(crate) fn order(erasure: &Erasure, now: Timestamp) -> Command {
    let Erasure { id, home, bed, from, until, .. } = erasure.clone();
    let value = serde_json::to_value(Purge { home, bed, from, until }).expect("a purge is a map of texts and numbers");
    Command {
        id: format!("{PREFIX}{id}"),
        device: DeviceId::new(SPOOL).expect("it is a name"),
        action: ACTION_PURGE.to_owned(),
        value,
        expires_at: now + ORDERED,
    }
}

/// Which gateways have answered since the start: at most one entry for each tombstone and gateway. After a restart they are
/// ordered once more; where there is nothing left to empty, that does nothing.
#[derive(Debug, Default)]
pub(crate) struct Purges(BTreeSet<(GatewayId, String)>);

impl Purges {
    /// What a gateway that is there and serves a home must still be ordered.
    pub(crate) fn due(&self, erasures: &Erasures, gateway: &GatewayId, home: &HomeId, now: Timestamp) -> Vec<Command> {
        let orders = erasures.in_spool_of(gateway, home).map(|erasure| order(erasure, now));
        orders.filter(|order| !self.0.contains(&(gateway.clone(), order.id.clone()))).collect()
    }

    /// A gateway has answered. One that refuses cannot do it, and is not asked again until the next start.
    pub(crate) fn answered(&mut self, gateway: &GatewayId, result: &CommandResult) {
        if result.id.starts_with(PREFIX) && matches!(result.outcome, Outcome::Done | Outcome::Refused) {
            self.0.insert((gateway.clone(), result.id.clone()));
        }
    }
}
