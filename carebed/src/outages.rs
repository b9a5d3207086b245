//! Times at which a recording's platform was down: what was observed then is lost, and says nothing of the homes.

use std::path::Path;

use anyhow::{Context as _, bail};
use carebed_contract::time::Timestamp;

/// A stretch of time: from when, to when.
pub(crate) type Outage = (Timestamp, Timestamp);

/// Reads a CSV of them: `start,end` per line after a heading; what else stands in a line is for people.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Outage>> {
    let mut reader = csv::Reader::from_path(path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut outages = Vec::new();
    for (row, record) in reader.records().enumerate() {
        let record = record.with_context(|| format!("failed to read {}", path.display()))?;
        let time = |field: usize| record.get(field).and_then(Timestamp::parse);
        let Some(outage) = time(0).zip(time(1)).filter(|(from, to)| from < to) else {
            bail!(
                "{}:{}: a line is two times, the earlier first, as in 2019-05-27T01:25:57Z,2019-05-27T03:31:54Z",
                path.display(),
                row + 2
            );
        };
        outages.push(outage);
    }
    Ok(outages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_two_times_and_a_wrong_one_is_told_with_its_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let parse = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            read(file.path()).map_err(|error| error.to_string())
        };
        let at = |text: &str| Timestamp::parse(text).unwrap();
        let known = parse("start,end,note\n2019-05-27T01:00:00Z,2019-05-27T03:00:00.000Z,all homes\n").unwrap();
        assert_eq!(known, [(at("2019-05-27T01:00:00Z"), at("2019-05-27T03:00:00Z"))]);
        for wrong in ["start,end\n2019-05-27,noon\n", "start,end\n2019-05-27T03:00:00Z,2019-05-27T01:00:00Z\n"] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains(":2: a line is two times"), "{error}");
        }
    }
}
