//! `episodes` from the memory of live detection, where a statement asks for nothing older.

use std::fmt;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use crate::episodes::{Episode, Episodes};
use crate::home::HomeFacts;

/// How many homes are asked for at once: whoever holds the episodes has calls to look at in between.
const HOMES_AT_ONCE: usize = 64;

/// The episodes that live detection has in memory.
#[async_trait]
pub trait Recent: Send + Sync + fmt::Debug {
    /// From when on every episode that began is in memory, and those of these homes. None while that is not known, as in the
    /// first moments after a restart.
    async fn of(&self, homes: Vec<HomeId>) -> Option<(Timestamp, Vec<Episode>)>;
}

/// The episodes of these homes, if all that began from `from` on are in memory.
pub(super) async fn rows(recent: &dyn Recent, homes: &[HomeFacts], from: Timestamp) -> Option<RecordBatch> {
    let mut all = Vec::new();
    for homes in homes.chunks(HOMES_AT_ONCE) {
        let (since, episodes) = recent.of(homes.iter().map(|facts| facts.home.clone()).collect()).await?;
        if from < since {
            return None;
        }
        all.extend(episodes);
    }
    Some(Episodes::table(&all))
}

/// The earliest beginning that filters leave: `started_at >= …`, in whatever way it is written. None when they leave any.
pub(super) fn from(filters: &[Expr]) -> Option<Timestamp> {
    filters.iter().flat_map(split_conjunction).filter_map(bound).max()
}

/// Whether a filter says so.
pub(super) fn is_from(filter: &Expr) -> bool {
    bound(filter).is_some()
}

fn bound(filter: &Expr) -> Option<Timestamp> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
    match op {
        Operator::GtEq | Operator::Gt if is_beginning(left) => time(right),
        Operator::LtEq | Operator::Lt if is_beginning(right) => time(left),
        _ => None,
    }
}

fn is_beginning(expression: &Expr) -> bool {
    match expression {
        Expr::Column(column) => column.name == "started_at",
        // To a finer unit: the order stays.
        Expr::Cast(cast) => is_beginning(&cast.expr),
        _ => false,
    }
}

/// A time, to the millisecond before it.
fn time(expression: &Expr) -> Option<Timestamp> {
    let Expr::Literal(value, _) = expression else { return None };
    let millis = match value {
        ScalarValue::TimestampSecond(Some(at), _) => at.checked_mul(1_000)?,
        ScalarValue::TimestampMillisecond(Some(at), _) => *at,
        ScalarValue::TimestampMicrosecond(Some(at), _) => at.div_euclid(1_000),
        ScalarValue::TimestampNanosecond(Some(at), _) => at.div_euclid(1_000_000),
        _ => return None,
    };
    Some(Timestamp::from_millis(millis))
}
