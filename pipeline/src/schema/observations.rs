//! How rows of `observations` lie in files, and reading them from Arrow.

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
use arrow::error::ArrowError;
use carebed_contract::observation::Observation;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::value::Value;

use super::observations;

/// How the rows of each file are sorted: ascending, rows without a bed first.
pub const SORT_ORDER: [&str; 3] = ["bed_id", "quantity", "event_time"];

/// Rows as observations, whatever encoding of strings a reader gave the columns. What was a flag comes back as the number
/// 1 or 0. Fails when a column is missing or holds what no observation can.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Observation>, ArrowError> {
    let columns = Columns::of(batch)?;
    (0..batch.num_rows()).map(|row| columns.observation(row)).collect()
}

struct Columns {
    area: StringArray,
    home: StringArray,
    bed: StringArray,
    device: StringArray,
    room: StringArray,
    quantity: StringArray,
    unit: StringArray,
    event_time: TimestampMillisecondArray,
    value: Float64Array,
    text: StringArray,
    quality: StringArray,
    clock: StringArray,
    gateway: StringArray,
    boot: Int64Array,
    epoch: StringArray,
    lane: StringArray,
    seq: Int64Array,
    gateway_time: TimestampMillisecondArray,
    received_time: TimestampMillisecondArray,
}

impl Columns {
    fn of(batch: &RecordBatch) -> Result<Self, ArrowError> {
        let schema = observations();
        let column = |name: &str| -> Result<ArrayRef, ArrowError> {
            let found = batch.column(batch.schema().index_of(name)?);
            cast(found, schema.field_with_name(name)?.data_type())
        };
        let string = |name| column(name).map(|c| c.as_string::<i32>().clone());
        let time = |name| column(name).map(|c| c.as_primitive::<TimestampMillisecondType>().clone());
        let int = |name| column(name).map(|c| c.as_primitive::<Int64Type>().clone());
        Ok(Self {
            area: string("area")?,
            home: string("home_id")?,
            bed: string("bed_id")?,
            device: string("device_id")?,
            room: string("room")?,
            quantity: string("quantity")?,
            unit: string("unit")?,
            event_time: time("event_time")?,
            value: column("value")?.as_primitive::<Float64Type>().clone(),
            text: string("text")?,
            quality: string("quality")?,
            clock: string("clock_quality")?,
            gateway: string("gateway_id")?,
            boot: int("boot")?,
            epoch: string("epoch")?,
            lane: string("lane")?,
            seq: int("seq")?,
            gateway_time: time("gateway_time")?,
            received_time: time("received_time")?,
        })
    }

    fn observation(&self, row: usize) -> Result<Observation, ArrowError> {
        let bad = |what: &str| ArrowError::ParseError(format!("row {row} holds an impossible {what}"));
        let time = |column: &TimestampMillisecondArray| Timestamp::from_millis(column.value(row));
        let value = match (self.value.is_valid(row), self.text.is_valid(row)) {
            (true, _) => Value::Number(self.value.value(row)),
            (false, true) => Value::Text(self.text.value(row).to_owned()),
            (false, false) => Value::Missing,
        };
        let optional = |column: &StringArray| column.is_valid(row).then(|| column.value(row).to_owned());
        Ok(Observation {
            area: self.area.value(row).parse().map_err(|_| bad("area"))?,
            home: self.home.value(row).parse().map_err(|_| bad("home_id"))?,
            bed: optional(&self.bed).map(|b| b.parse()).transpose().map_err(|_| bad("bed_id"))?,
            device: self.device.value(row).parse().map_err(|_| bad("device_id"))?,
            room: optional(&self.room).map(|r| r.parse()).transpose().map_err(|_| bad("room"))?,
            quantity: Quantity::new(self.quantity.value(row)).ok_or_else(|| bad("quantity"))?,
            unit: self.unit.value(row).into(),
            event_time: time(&self.event_time),
            value,
            quality: Quality::parse(self.quality.value(row)),
            clock: ClockQuality::parse(self.clock.value(row)).ok_or_else(|| bad("clock_quality"))?,
            gateway: self.gateway.value(row).parse().map_err(|_| bad("gateway_id"))?,
            boot: self.boot.is_valid(row).then(|| self.boot.value(row)).and_then(|b| u64::try_from(b).ok()),
            epoch: self.epoch.value(row).parse().map_err(|_| bad("epoch"))?,
            lane: carebed_contract::labels::Lane::parse(self.lane.value(row)).ok_or_else(|| bad("lane"))?,
            seq: u64::try_from(self.seq.value(row)).map_err(|_| bad("seq"))?,
            gateway_time: if self.gateway_time.is_valid(row) {
                time(&self.gateway_time)
            } else {
                time(&self.event_time)
            },
            received_time: time(&self.received_time),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Piece, Words, sorted};

    #[test]
    fn rows_survive_arrow() {
        let pack = br#"[{"n":"h1/b1/mat-1/heart_rate","v":72,"t":1772403300.25,"q":"uncertain:motion","boot":9},
            {"n":"h1/-/door-1/door_open","v":1},{"n":"h1/b1/mat-1/heart_rate","vs":"","q":"bad:no_answer"},
            {"n":"h1/b1/mat-1/moon_phase","vs":"full","u":"x"}]"#;
        let origin = crate::rows::Origin {
            area: "360702".parse().unwrap(),
            gateway: "gw-1".parse().unwrap(),
            epoch: "00000000000000ff".parse().unwrap(),
            lane: carebed_contract::labels::Lane::Urgent,
            seq: 41,
            sealed: None,
            received: Timestamp::from_millis(1_772_403_301_000),
            recorded: false,
        };
        let mut rows = crate::rows::observations(pack, &origin, &crate::rows::Rooms::default());
        let streaks = crate::streak::streaks(rows.clone());
        let pieces: Vec<Piece<'_>> = streaks.iter().map(Piece::of).collect();
        rows.sort_by(|a, b| (&a.bed, &a.quantity, a.event_time).cmp(&(&b.bed, &b.quantity, b.event_time)));
        for words in [Words::Views, Words::Keys] {
            assert_eq!(from_batch(&sorted(&pieces, words).unwrap()).unwrap(), rows, "{words:?}");
        }
        let batch = sorted(&pieces, Words::Views).unwrap();
        let without = batch.project(&[0, 1, 2]).unwrap();
        assert!(from_batch(&without).is_err());
    }
}
