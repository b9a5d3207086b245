//! A function in the place of one of DataFusion's, under the same names: it answers what it knows better, and asks that one for the
//! rest.

use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// How such a function answers.
pub(super) trait Instead: Debug + Eq + Hash + Send + Sync + 'static {
    /// `any` is DataFusion's.
    fn answer(any: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue>;
}

pub(super) fn instead<I: Instead>(any: Arc<ScalarUDF>) -> ScalarUDF {
    ScalarUDF::from(Stand::<I> { any, how: PhantomData })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Stand<I> {
    any: Arc<ScalarUDF>,
    how: PhantomData<I>,
}

impl<I: Instead> ScalarUDFImpl for Stand<I> {
    fn name(&self) -> &str {
        self.any.name()
    }

    /// All of its names: a state that is made from another registers each function again under all its names, in any order, and
    /// one left under any of them would now and then take this one's place.
    fn aliases(&self) -> &[String] {
        self.any.aliases()
    }

    fn signature(&self) -> &Signature {
        self.any.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.any.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.any.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        I::answer(&self.any, args)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.any.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.any.documentation()
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::{Limits, runtime, session};

    /// Under none of their names is DataFusion's left.
    #[test]
    fn they_are_the_only_ones() {
        let state = session(Limits::default(), runtime(Limits::default()).unwrap());
        for name in ["date_trunc", "to_char"] {
            let named: Vec<_> = state.scalar_functions().values().filter(|function| function.name() == name).collect();
            assert!(named.len() > 1, "an alias");
            for function in named {
                assert!(format!("{function:?}").contains("Stand"), "{function:?}");
            }
        }
    }
}
