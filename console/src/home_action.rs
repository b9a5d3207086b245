//! What is asked of the home: the lamp that says "help is coming", or, before anybody is told, "please give a sign".

use std::time::Duration;

use carebed_alerts::alert::{Alert, State};
use carebed_alerts::transition::{Change, Transition};
use carebed_contract::command::Command;
use carebed_contract::finding::{Class, Priority};
use carebed_contract::id::{Area, GatewayId, HomeId};

use crate::registry::Home;

/// After this a command is not carried out any more: a lamp lit late misleads.
pub const EXPIRES_AFTER: Duration = Duration::from_secs(300);

/// The longest warning that a gateway takes, as in its commands.
const WARN_MAX: Duration = Duration::from_secs(15 * 60);
/// What is done with the lamp.
const SET: &str = "set";
const WARN: &str = "warn";

/// A command for one home, with what is needed to address it.
#[derive(Debug, Clone, PartialEq)]
pub struct HomeAction {
    /// Where the gateway was enrolled.
    pub area: Area,
    /// The gateway.
    pub gateway: GatewayId,
    /// The home.
    pub home: HomeId,
    /// What to do. Its id follows from the transition, so that asking again after a crash is asking the same.
    pub command: Command,
}

/// What a transition of `alert` asks of its home; `open` are all alerts that are not resolved.
///
/// An alert that waits for a confirmation in the home lets the lamp blink meanwhile, so that whoever is there may move or
/// press cancel; when that comes, the lamp goes out. A care alert of P1 or P2 lights the lamp when somebody acknowledges it.
/// The lamp goes out when the last of them in that home is resolved.
#[must_use]
pub fn asked(transition: &Transition, alert: &Alert, open: &[&Alert], home: &Home) -> Option<HomeAction> {
    let lights = |alert: &Alert| alert.class == Class::Care && alert.priority <= Priority::P2;
    let helped = || {
        let is_helped = |other: &&Alert| other.home == alert.home && other.id != alert.id && lights(other);
        open.iter().copied().any(|other| is_helped(&other) && other.state >= State::Acknowledged)
    };
    let (action, value) = match &transition.change {
        Change::Raised(raised) if raised.suppressed.is_none() && !raised.late => {
            let seconds = raised.opens_at?.since(transition.at).as_secs();
            (WARN, serde_json::Value::from(seconds.clamp(1, WARN_MAX.as_secs())))
        }
        Change::Acknowledged { .. } if lights(alert) => (SET, true.into()),
        Change::Resolved { .. } => {
            let lit = lights(alert) && alert.step(State::Acknowledged).is_some();
            let blinks = alert.opens_at.is_some_and(|opens_at| transition.at < opens_at);
            if !(lit || blinks) || helped() {
                return None;
            }
            (SET, false.into())
        }
        _ => return None,
    };
    Some(HomeAction {
        area: home.area.clone(),
        gateway: home.gateway.clone()?,
        home: home.id.clone(),
        command: Command {
            id: format!("lamp-{}-{}", transition.alert, transition.number),
            device: home.lamp.clone()?,
            action: action.to_owned(),
            value,
            expires_at: transition.at + EXPIRES_AFTER,
        },
    })
}
