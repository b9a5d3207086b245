//! `to_char` with the formats that PostgreSQL's users write (`YYYY-MM-DD HH24:MI`), where a format has no `%`. DataFusion's own knows
//! strftime's only, and gives such a format back as it stands, for every row.

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::functions::datetime;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

use super::instead::{Instead, instead};

/// In the place of DataFusion's, under the same names.
pub(in crate::engine) fn to_char() -> ScalarUDF {
    instead::<ToChar>(datetime::to_char())
}

/// PostgreSQL's patterns in any case, each before those that it begins with, and strftime's.
const NUMBERS: [(&str, &str); 15] = [
    ("HH24", "H"),
    ("HH12", "I"),
    ("HH", "I"),
    ("MI", "M"),
    ("SS", "S"),
    ("MS", "3f"),
    ("US", "6f"),
    ("IYYY", "G"),
    ("IW", "V"),
    ("ID", "u"),
    ("YYYY", "Y"),
    ("YY", "y"),
    ("MM", "m"),
    ("DDD", "j"),
    ("DD", "d"),
];
/// Those whose case says how the answer is written.
/// PostgreSQL fills the long ones up with blanks, unless it is told not to.
const NAMES: [(&str, &str); 8] =
    [("Mon", "b"), ("Dy", "a"), ("FMMonth", "B"), ("FMDay", "A"), ("AM", "p"), ("PM", "p"), ("am", "P"), ("pm", "P")];
/// The next number is written without a leading zero.
const UNFILLED: &str = "FM";

const KNOWN: &str = "it knows YYYY MM DD HH24 HH12 MI SS MS US AM DDD IYYY IW ID Mon Dy FMMonth FMDay, text in \"double quotes\", and \
    strftime's formats as %Y-%m-%d";

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar;

impl Instead for ToChar {
    fn answer(any: &ScalarUDF, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let [time, format] = args.args.as_mut_slice()
            && !matches!(time.data_type(), DataType::Duration(_))
        {
            match format {
                ColumnarValue::Scalar(ScalarValue::Utf8(Some(text))) => *text = strftime(text)?,
                ColumnarValue::Array(texts) => {
                    let texts = texts.as_string::<i32>().iter();
                    let read: StringArray = texts.map(|text| text.map(strftime).transpose()).collect::<Result<_>>()?;
                    *format = ColumnarValue::Array(std::sync::Arc::new(read));
                }
                ColumnarValue::Scalar(_) => {}
            }
        }
        any.invoke_with_args(args)
    }
}

/// A format as strftime's; one with a `%` is that already.
fn strftime(format: &str) -> Result<String> {
    if format.contains('%') {
        return Ok(format.to_owned());
    }
    let (mut read, mut rest) = (String::new(), format);
    loop {
        if let Some((code, after)) = code(rest) {
            read.push_str(&code);
            rest = after;
            continue;
        }
        let mut left = rest.chars();
        match left.next() {
            None => return Ok(read),
            Some('"') => {
                let Some((text, after)) = left.as_str().split_once('"') else {
                    return exec_err!("to_char: {format:?} ends within its quotes");
                };
                read.push_str(text);
                rest = after;
            }
            Some(letter) if letter.is_ascii_alphabetic() => {
                let letters: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
                return exec_err!("to_char does not know {letters:?} in {format:?}: {KNOWN}");
            }
            Some(other) => {
                read.push(other);
                rest = left.as_str();
            }
        }
    }
}

/// The code of the pattern that a format begins with, and what comes behind.
fn code(format: &str) -> Option<(String, &str)> {
    let name = NAMES.iter().find_map(|(name, code)| Some((format!("%{code}"), format.strip_prefix(name)?)));
    name.or_else(|| number(format, "%")).or_else(|| number(format.strip_prefix(UNFILLED)?, "%-"))
}

fn number<'a>(format: &'a str, sign: &str) -> Option<(String, &'a str)> {
    NUMBERS.iter().find_map(|(pattern, code)| {
        let (begins, after) = format.split_at_checked(pattern.len())?;
        begins.eq_ignore_ascii_case(pattern).then(|| (format!("{sign}{code}"), after))
    })
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use crate::engine::{Limits, runtime, session};

    /// What PostgreSQL 15 answers for the same (of 2026-03-01, a Sunday).
    #[tokio::test]
    async fn it_reads_what_users_of_postgresql_write() {
        let context = SessionContext::new_with_state(session(Limits::default(), runtime(Limits::default()).unwrap()));
        let time = "arrow_cast(TIMESTAMP '2026-03-01 14:05:09.123', 'Timestamp(Millisecond, Some(\"UTC\"))')";
        for (asked, said) in [
            ("'YYYY-MM-DD HH24:MI:SS.MS'", Ok("2026-03-01 14:05:09.123")),
            ("'yyyy/mm/dd'", Ok("2026/03/01")),
            ("'YYYY-MM-DD\"T\"HH24:MI:SS.US'", Ok("2026-03-01T14:05:09.123000")),
            ("'FMDD.FMMM.YY HH12:MI PM'", Ok("1.3.26 02:05 PM")),
            ("'Dy DD Mon, FMDay FMMonth'", Ok("Sun 01 Mar, Sunday March")),
            ("'IYYY-IW-ID DDD'", Ok("2026-09-7 060")),
            ("'YYYY年MM月DD日'", Ok("2026年03月01日")),
            ("'%Y-%m MM'", Ok("2026-03 MM")),
            ("''", Ok("")),
            ("column1", Ok("03")),
            ("'YYYY-MM-DDTHH24:MI'", Err("\"THH\"")),
            ("'Month'", Err("\"th\" in \"Month\"")),
            ("'YYYY\"年'", Err("ends within its quotes")),
        ] {
            let sql = format!("SELECT to_char({time}, {asked}) AS said FROM (VALUES ('MM'))");
            let answer = async { context.sql(&sql).await?.collect().await }.await;
            match (answer, said) {
                (Ok(batches), Ok(said)) => {
                    let column = batches[0].column(0);
                    assert_eq!(arrow::util::display::array_value_to_string(column, 0).unwrap(), said, "{asked}");
                }
                (Err(error), Err(why)) => assert!(error.to_string().contains(why), "{asked}: {error}"),
                (answer, said) => panic!("{asked}: {answer:?}, not {said:?}"),
            }
        }
    }
}
