//! Parts of SQL that the query engine quietly takes for something else.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Statement, Visit, Visitor, WindowType};

/// What in a statement would be answered as if it were not there, and what to write instead.
pub(crate) fn misread(statement: &Statement) -> Option<&'static str> {
    match statement.visit(&mut Misread) {
        ControlFlow::Break(what) => Some(what),
        ControlFlow::Continue(()) => None,
    }
}

struct Misread;

impl Visitor for Misread {
    type Break = &'static str;

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<Self::Break> {
        match expression {
            // DataFusion 55 takes what stands behind the name and forgets the named window.
            Expr::Function(function) => match &function.over {
                Some(WindowType::WindowSpec(spec)) if spec.window_name.is_some() => ControlFlow::Break(
                    "a named window cannot be added to, as in OVER (w ROWS …): write OVER w, or the whole window",
                ),
                _ => ControlFlow::Continue(()),
            },
            _ => ControlFlow::Continue(()),
        }
    }
}
