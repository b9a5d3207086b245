//! Steps that make many rows of few let others have their turn, so that a statement's time is looked at.
//!
//! The engine counts turns where rows are read. A join of everything with everything reads a little and makes batches for
//! hours: it would never come to see that its statement's time is over, or that its client has gone.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{CrossJoinExec, NestedLoopJoinExec};

/// Counts the batches of such steps as turns.
#[derive(Debug)]
pub(super) struct TakeTurns;

impl PhysicalOptimizerRule for TakeTurns {
    fn name(&self) -> &str {
        "take_turns"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let counted = plan.transform_up(|step| {
            let multiplies =
                step.downcast_ref::<CrossJoinExec>().is_some() || step.downcast_ref::<NestedLoopJoinExec>().is_some();
            Ok(if multiplies {
                Transformed::yes(Arc::new(CooperativeExec::new(step)) as _)
            } else {
                Transformed::no(step)
            })
        })?;
        Ok(counted.data)
    }
}
