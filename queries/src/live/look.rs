//! One round over some homes, as things stood when it was prepared.

use std::collections::BTreeMap;
use std::sync::Arc;

use carebed_contract::finding::Finding;
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use futures::StreamExt as _;

use crate::coverage::Coverage;
use crate::engine::{Detection, Engine, EvaluateError, Inputs};
use crate::episodes::KEEP_MAX;

/// What a round of detections found. One that failed does not hold up the others.
#[derive(Debug, Default)]
pub struct Round {
    /// What holds, or held within the detections' windows, in the homes looked at.
    pub findings: Vec<Finding>,
    /// Detections that gave no answer for the homes asked about.
    pub failed: Vec<EvaluateError>,
}

/// A round that was prepared and can run beside whatever happens next.
#[derive(Debug)]
pub struct Look {
    pub(super) engine: Arc<Engine>,
    pub(super) detections: Vec<Detection>,
    pub(super) homes: BTreeMap<HomeId, Timestamp>,
    pub(super) inputs: Inputs,
    pub(super) neighbours: Inputs,
    pub(super) coverage: Arc<Coverage>,
    pub(super) now: Timestamp,
}

impl Look {
    /// The homes it looks at, each with the time up to which it is known. Detections that rest on signs look at all there are.
    #[must_use]
    pub fn homes(&self) -> &BTreeMap<HomeId, Timestamp> {
        &self.homes
    }

    /// What the detections find.
    pub async fn run(self) -> Round {
        let Self { engine, detections, inputs, neighbours, coverage, now, .. } = self;
        let asked = detections.into_iter().map(move |detection| {
            let inputs = if detection.meaning.rests_on_signs { &neighbours } else { &inputs };
            (detection, inputs.clone())
        });
        let mut answers = engine.evaluate_each(asked, now);
        let mut round = Round::default();
        while let Some((detection, answer)) = answers.next().await {
            match answer {
                Ok(mut findings) => {
                    coverage.mark(&detection.meaning, &mut findings, now);
                    // What others rest on is forgotten in part: they were told in their time, or were not so.
                    let (over, known) = (now - detection.meaning.window, now - KEEP_MAX);
                    let is_whole =
                        |f: &Finding| f.raised_at >= known && f.cleared_at.is_none_or(|cleared| cleared >= over);
                    round.findings.extend(findings.into_iter().filter(is_whole));
                }
                Err(error) => round.failed.push(error),
            }
        }
        round
    }
}
