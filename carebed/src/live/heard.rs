//! What ingest tells live detection, calls before all else.

use carebed_pipeline::event::Event;
use tokio::sync::mpsc;

/// What ingest tells.
#[derive(Debug)]
pub struct Heard {
    /// Calls.
    pub urgent: mpsc::Receiver<Event>,
    /// What gateways say of themselves and their homes.
    pub signs: mpsc::Receiver<Event>,
    /// Routine observations.
    pub routine: mpsc::Receiver<Event>,
}

impl Heard {
    /// The next event, calls first; none when ingest has ended.
    pub(super) async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            biased;
            Some(event) = self.urgent.recv() => Some(event),
            Some(event) = self.signs.recv() => Some(event),
            Some(event) = self.routine.recv() => Some(event),
            else => None,
        }
    }

    pub(super) fn close(&mut self) {
        self.urgent.close();
        self.signs.close();
        self.routine.close();
    }
}

#[cfg(test)]
mod tests {
    use carebed_contract::id::{Area, GatewayId};
    use carebed_pipeline::memory::Rows;

    use carebed_contract::topic::Topic;

    use super::*;

    #[tokio::test]
    async fn a_call_stands_behind_no_last_will_and_no_routine_data() {
        let (gateway, area): (GatewayId, Area) = ("gw-1".parse().unwrap(), "360702".parse().unwrap());
        let rows = || Rows::from(Vec::new());
        let accepted =
            || Event::Accepted { gateway: gateway.clone(), area: area.clone(), rows: rows(), complete: Vec::new() };
        let lost = serde_json::json!({ "state": "lost", "since": 0, "home": "h1", "software": "" });
        let topic = Topic::new(area.clone(), gateway.clone(), carebed_contract::topic::Channel::Status);
        let sign = || Event::Status { topic: topic.clone(), status: serde_json::from_value(lost.clone()).unwrap() };
        let ((urgent, calls), (signs, news), (routine, rest)) =
            (mpsc::channel(4), mpsc::channel(3_000), mpsc::channel(4));
        let mut heard = Heard { urgent: calls, signs: news, routine: rest };
        routine.try_send(accepted()).unwrap();
        (0..3_000).for_each(|_| signs.try_send(sign()).unwrap());
        urgent.try_send(Event::Early { gateway: gateway.clone(), area: area.clone(), rows: rows() }).unwrap();
        assert!(matches!(heard.next().await, Some(Event::Early { .. })));
        assert!(matches!(heard.next().await, Some(Event::Status { .. })));
        urgent.try_send(accepted()).unwrap();
        assert!(matches!(heard.next().await, Some(Event::Accepted { .. })), "a call between last wills");
        drop((urgent, signs, routine));
        heard.close();
        let mut left = 0;
        while heard.next().await.is_some() {
            left += 1;
        }
        assert_eq!(left, 3_000);
    }
}
