//! SenML-JSON (RFC 8428 §5), so that a person can publish by hand.

use serde::Deserialize;

use super::{DecodeError, RECORDS_MAX, Raw};

#[derive(Deserialize)]
struct Line {
    bn: Option<String>,
    bt: Option<f64>,
    bu: Option<String>,
    bv: Option<f64>,
    bver: Option<f64>,
    n: Option<String>,
    u: Option<String>,
    v: Option<f64>,
    vs: Option<String>,
    vb: Option<bool>,
    t: Option<f64>,
    q: Option<String>,
    ck: Option<String>,
    gt: Option<i64>,
    mono: Option<u64>,
    boot: Option<u64>,
    #[serde(flatten)]
    other: std::collections::BTreeMap<String, serde_json::Value>,
}

/// Reads the records of a pack, base values not yet applied.
pub(super) fn decode(
    bytes: &[u8],
    mut each: impl FnMut(Raw<'_>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let lines: Vec<Line> = serde_json::from_slice(bytes)?;
    if lines.len() > RECORDS_MAX {
        return Err(DecodeError::TooLarge { what: "records", limit: RECORDS_MAX });
    }
    for l in &lines {
        each(Raw {
            must_understand: l.bver.is_some_and(|v| v > 10.0) || l.other.keys().any(|k| k.ends_with('_')),
            base_name: l.bn.as_deref(),
            base_time: l.bt,
            base_unit: l.bu.as_deref(),
            base_value: l.bv,
            name: l.n.as_deref(),
            unit: l.u.as_deref(),
            value: l.v,
            text: l.vs.as_deref(),
            flag: l.vb,
            time: l.t,
            quality: l.q.as_deref(),
            clock: l.ck.as_deref(),
            gateway_offset: l.gt,
            monotonic: l.mono,
            boot: l.boot,
        })?;
    }
    Ok(())
}
