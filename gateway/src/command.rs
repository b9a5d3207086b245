//! What the centre asks of the home: whether it may be done, and whether it was done before. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use carebed_contract::command::{Command, CommandResult, Outcome};
use carebed_contract::record::Series;
use carebed_contract::time::Timestamp;
use carebed_device_profiles::modbus::Request;
use carebed_device_profiles::profile::{ACTION_SET, Send};

use crate::home::{ACTION_WARN, HomeFile};
use crate::link::{NotConfirmed, Write};
use crate::signals::WARN_MAX;

/// Commands remembered, so that the same id is not done twice; then the oldest is forgotten. At a press every minute that
/// is four hours, far longer than any command lives.
const REMEMBERED_MAX: usize = 256;

/// What to do with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Set an output; the result follows.
    Write(Write),
    /// Let an output blink for so long (its position in [`HomeFile::outputs`]), and tell this result.
    Warn {
        /// Which output.
        output: usize,
        /// For how long.
        lasts: Duration,
        /// That it was begun.
        result: CommandResult,
    },
    /// Tell this result.
    Tell(CommandResult),
    /// It is under way; its result follows.
    UnderWay,
}

/// The commands of the recent past.
#[derive(Debug, Default)]
pub struct Commands {
    remembered: VecDeque<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    id: String,
    /// What a confirmed write is recorded as, and the value written.
    recorded: Option<(Series, bool)>,
    result: Option<CommandResult>,
}

impl Commands {
    /// Decides on a command that came at `now`.
    pub fn decide(&mut self, command: &Command, home: &HomeFile, now: Timestamp) -> Decision {
        if let Some(known) = self.remembered.iter().find(|known| known.id == command.id) {
            return known.result.clone().map_or(Decision::UnderWay, Decision::Tell);
        }
        let allowed = if now >= command.expires_at {
            Err((Outcome::Expired, format!("it expired at {}", command.expires_at)))
        } else {
            allow(command, home, now).map_err(|reason| (Outcome::Refused, reason))
        };
        let (decision, recorded) = match allowed {
            Ok(Allowed::Set(write, series)) => {
                let recorded = series.map(|series| (series, write.value));
                (Decision::Write(write), recorded)
            }
            Ok(Allowed::Warn(output, lasts)) => {
                let result = CommandResult { id: command.id.clone(), outcome: Outcome::Done, reason: None, at: now };
                (Decision::Warn { output, lasts, result }, None)
            }
            Err((outcome, reason)) => {
                let id = command.id.clone();
                (Decision::Tell(CommandResult { id, outcome, reason: Some(reason), at: now }), None)
            }
        };
        let result = match &decision {
            Decision::Tell(result) | Decision::Warn { result, .. } => Some(result.clone()),
            Decision::Write(_) | Decision::UnderWay => None,
        };
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back(Remembered { id: command.id.clone(), recorded, result });
        decision
    }

    /// A write ended: the result to tell, and what to record when it was done.
    pub fn written(
        &mut self,
        id: String,
        result: Result<(), NotConfirmed>,
        now: Timestamp,
    ) -> (CommandResult, Option<(Series, bool)>) {
        let known = self.remembered.iter_mut().find(|known| known.id == id);
        let (outcome, reason) = match result {
            Ok(()) => (Outcome::Done, None),
            Err(NotConfirmed::Failed(reason)) => (Outcome::Failed, Some(reason)),
            Err(NotConfirmed::Sent(reason)) => (Outcome::Unconfirmed, Some(format!("sent, not confirmed: {reason}"))),
        };
        let result = CommandResult { id, outcome, reason, at: now };
        let recorded = known.and_then(|known| {
            known.result = Some(result.clone());
            known.recorded.take().filter(|_| outcome == Outcome::Done)
        });
        (result, recorded)
    }
}

/// What a command may do.
enum Allowed {
    /// Set an output, and record it as this once it is done.
    Set(Write, Option<Series>),
    /// Let the output at this position blink for so long.
    Warn(usize, Duration),
}

/// Finds the output that a command is about. Home file and profile must both allow it; the profile's deny-list holds
/// whatever they say.
fn allow(command: &Command, home: &HomeFile, now: Timestamp) -> Result<Allowed, String> {
    let Some((position, (index, board, output))) =
        home.outputs().enumerate().find(|(_, (_, _, output))| output.device == command.device)
    else {
        return Err(format!("no output of this home is named {}", command.device));
    };
    if !output.actions.contains(&command.action) {
        return Err(format!("{} cannot {:?}", command.device, command.action));
    }
    let (value, warns) = match command.action.as_str() {
        ACTION_SET => {
            let value = command.value.as_bool();
            (
                value.ok_or_else(|| format!("{} is set to true or false, not to {}", command.device, command.value))?,
                None,
            )
        }
        ACTION_WARN => {
            let seconds = command.value.as_u64().filter(|seconds| (1..=WARN_MAX.as_secs()).contains(seconds));
            let longest = WARN_MAX.as_secs();
            let wrong = || format!("a warning lasts 1 to {longest} seconds, not {}", command.value);
            (true, Some(Duration::from_secs(seconds.ok_or_else(wrong)?)))
        }
        _ => return Err(format!("{} cannot {:?}", command.device, command.action)),
    };
    let send = board.profile.outputs.get(output.output).and_then(|output| output.send(value));
    let denied = match send {
        Some(Send::Modbus(Request::WriteCoil { address, .. })) => board.profile.denies(*address),
        Some(Send::Modbus(Request::WriteRegister { address, .. })) => board.profile.denies_register(*address),
        Some(_) => None,
        None => return Err(format!("{} cannot be set to {value}", command.device)),
    };
    if let Some(rule) = denied {
        return Err(format!("{} is denied: {}", command.device, rule.reason));
    }
    if let Some(lasts) = warns {
        return Ok(Allowed::Warn(position, lasts));
    }
    let series = output.quantity.clone().map(|quantity| Series {
        home: home.home.clone(),
        bed: output.bed.clone(),
        device: output.device.clone(),
        quantity,
    });
    let within = command.expires_at.since(now);
    Ok(Allowed::Set(Write { id: command.id.clone(), board: index, output: output.output, value, within }, series))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(id: &str, device: &str, action: &str, value: serde_json::Value) -> Command {
        let expires_at = Timestamp::from_millis(10_000);
        Command { id: id.to_owned(), device: device.parse().unwrap(), action: action.to_owned(), value, expires_at }
    }

    #[test]
    fn a_command_is_checked_done_once_and_answered_again() {
        let home = HomeFile::parse("home.toml", include_str!("../../deploy/gateway/home.toml")).unwrap();
        let mut commands = Commands::default();
        let now = Timestamp::from_millis(9_999);
        let refused = |decision: Decision| match decision {
            Decision::Tell(result) => (result.outcome, result.reason.unwrap()),
            other => panic!("{other:?}"),
        };
        let cases = [
            (command("1", "lamp-2", "set", true.into()), "no output of this home is named lamp-2"),
            (command("2", "call-1", "set", true.into()), "no output of this home is named call-1"),
            (command("3", "lamp-1", "blink", true.into()), "lamp-1 cannot \"blink\""),
            (command("4", "lamp-1", "set", 3.into()), "lamp-1 is set to true or false, not to 3"),
        ];
        for (command, reason) in cases {
            assert_eq!(refused(commands.decide(&command, &home, now)), (Outcome::Refused, reason.to_owned()));
        }
        let late = command("5", "lamp-1", "set", true.into());
        assert_eq!(refused(commands.decide(&late, &home, late.expires_at)).0, Outcome::Expired);

        let light = command("6", "lamp-1", "set", true.into());
        let within = Duration::from_millis(1);
        let write = Write { id: "6".to_owned(), board: 0, output: 0, value: true, within };
        assert_eq!(commands.decide(&light, &home, now), Decision::Write(write));
        assert_eq!(commands.decide(&light, &home, now), Decision::UnderWay);
        let (result, recorded) = commands.written("6".to_owned(), Ok(()), now);
        let (series, value) = recorded.unwrap();
        assert_eq!(
            (series.to_string().as_str(), value, result.outcome),
            ("h1/h1-bed/lamp-1/lamp_on", true, Outcome::Done)
        );
        assert_eq!(commands.decide(&light, &home, light.expires_at), Decision::Tell(result));

        let warn = command("w", "lamp-1", "warn", 120.into());
        let Decision::Warn { output: 0, lasts, result } = commands.decide(&warn, &home, now) else {
            panic!("no warning")
        };
        assert_eq!((lasts, result.outcome), (Duration::from_secs(120), Outcome::Done));
        assert_eq!(commands.decide(&warn, &home, now), Decision::Tell(result), "once");
        let long = commands.decide(&command("l", "lamp-1", "warn", 901.into()), &home, now);
        assert_eq!(refused(long).1, "a warning lasts 1 to 900 seconds, not 901");

        let again = command("7", "lamp-1", "set", false.into());
        assert!(matches!(commands.decide(&again, &home, now), Decision::Write(_)));
        let (result, recorded) =
            commands.written("7".to_owned(), Err(NotConfirmed::Failed("no answer".to_owned())), now);
        assert_eq!((result.outcome, recorded), (Outcome::Failed, None));

        let third = command("8", "lamp-1", "set", true.into());
        assert!(matches!(commands.decide(&third, &home, now), Decision::Write(_)));
        let sent = Err(NotConfirmed::Sent("the broker has it".to_owned()));
        let (result, recorded) = commands.written("8".to_owned(), sent, now);
        assert_eq!((result.outcome, recorded), (Outcome::Unconfirmed, None), "what nobody knows is not recorded");
        assert_eq!(result.reason.as_deref(), Some("sent, not confirmed: the broker has it"));
    }

    #[test]
    fn memory_is_bounded() {
        let home = HomeFile::parse("home.toml", include_str!("../../deploy/gateway/home.toml")).unwrap();
        let mut commands = Commands::default();
        for id in 0..2 * REMEMBERED_MAX {
            commands.decide(&command(&id.to_string(), "x", "set", true.into()), &home, Timestamp::MIN);
        }
        assert_eq!(commands.remembered.len(), REMEMBERED_MAX);
    }
}
