//! TOML files that people write: every mistake at once, each with file, line, column and what to do.
//!
//! serde stops at the first mistake. Here a table is read field by field through [`Fields`]; each field goes through
//! serde alone, and whatever is left over when the table is done is a key that nobody knows.

mod schema;

use std::cell::RefCell;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use carebed_contract::quantity::{Quantity, vocabulary};
use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceCode};
pub use schema::schema;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, ValueDeserializer};

/// Most mistakes told of one file; a file with more is of another kind altogether.
const MISTAKES_MAX: usize = 50;

/// Where a value stands in its file, in bytes.
pub type Span = Range<usize>;

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    span: Span,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mistake {}

impl Diagnostic for Mistake {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.hint))
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = LabeledSpan::new_primary_with_span(None, self.span.clone());
        Some(Box::new(std::iter::once(span)))
    }
}

/// All mistakes of one file. [`fmt::Display`] gives one line of place and message and one line of advice for each;
/// as a [`Diagnostic`] it can be printed with the lines of the file.
#[derive(Debug)]
pub struct Mistakes {
    /// The file as its reader named it.
    pub file: String,
    /// The mistakes in the order of the file.
    pub list: Vec<Mistake>,
    source: NamedSource<String>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.list.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            let Mistake { line, column, message, hint, .. } = mistake;
            write!(f, "{newline}{}:{line}:{column}: {message}\n  hint: {hint}", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl Diagnostic for Mistakes {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.list.iter().map(|mistake| mistake as &dyn Diagnostic)))
    }
}

/// Reads a file's text. `read` takes the fields of its top table and returns none, or tells mistakes, when something
/// is wrong; the result is the value only when there was no mistake at all.
pub fn read<T>(file: &str, text: &str, read: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> Result<T, Mistakes> {
    let told = RefCell::new(Vec::new());
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let hint = "correct the TOML syntax here; see https://toml.io";
        tell(&told, error.span().unwrap_or(0..0), error.message().to_owned(), hint.to_owned());
    }
    // What a broken table seems to lack is not worth telling: syntax first.
    let value =
        if errors.is_empty() { read(&mut Fields::new("the file", 0..0, root.into_inner(), &told)) } else { None };
    let mut list = told.into_inner();
    match value {
        Some(value) if list.is_empty() => Ok(value),
        _ => {
            list.sort_by_key(|mistake| mistake.span.start);
            list.dedup();
            for mistake in &mut list {
                (mistake.line, mistake.column) = place(text, mistake.span.start);
            }
            let source = NamedSource::new(file, text.to_owned());
            Err(Mistakes { file: file.to_owned(), list, source })
        }
    }
}

fn tell(told: &RefCell<Vec<Mistake>>, span: Span, message: String, hint: String) {
    let mut told = told.borrow_mut();
    if told.len() < MISTAKES_MAX {
        told.push(Mistake { line: 0, column: 0, message, hint, span });
    }
}

fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// The nearest of the known words, when it is near enough to be meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|k| (strsim::damerau_levenshtein(word, k), k));
    scored.filter(|(distance, k)| *distance <= 1.max(k.len().max(word.len()) / 3)).min().map(|(_, k)| k)
}

/// "did you mean …" where something is near, else the list of what is known.
#[must_use]
pub fn advise<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => {
            let known: Vec<&str> = known.into_iter().collect();
            if known.is_empty() { "none is known here".to_owned() } else { format!("known: {}", known.join(", ")) }
        }
    }
}

/// The fields of one table. Dropping it tells of every key that was not taken.
#[derive(Debug)]
pub struct Fields<'d> {
    title: String,
    span: Span,
    left: Vec<(Spanned<DeString<'d>>, Spanned<DeValue<'d>>)>,
    known: Vec<&'static str>,
    told: &'d RefCell<Vec<Mistake>>,
    /// Where the schema grows, while it is derived; then every table is there and every field is absent.
    survey: Option<schema::Table>,
}

impl<'d> Fields<'d> {
    fn new(title: &str, span: Span, table: DeTable<'d>, told: &'d RefCell<Vec<Mistake>>) -> Self {
        Self { title: title.to_owned(), span, left: table.into_iter().collect(), known: Vec::new(), told, survey: None }
    }

    fn surveyed(title: &str, survey: schema::Table, told: &'d RefCell<Vec<Mistake>>) -> Self {
        let (title, left, known) = (title.to_owned(), Vec::new(), Vec::new());
        Self { title, span: 0..0, left, known, told, survey: Some(survey) }
    }

    /// Where the table begins.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Tells a mistake.
    pub fn tell(&self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        tell(self.told, span, message.into(), hint.into());
    }

    /// A quantity of the vocabulary. Another name is a mistake, and none.
    #[must_use]
    pub fn quantity(&self, name: &Spanned<String>) -> Option<Quantity> {
        let quantity = Quantity::new(name.get_ref()).filter(|quantity| quantity.definition().is_some());
        if quantity.is_none() {
            let known = vocabulary().keys().map(|name| &**name);
            let hint = match nearest(name.get_ref(), known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "the vocabulary is contract/quantities.toml".to_owned(),
            };
            self.tell(name.span(), format!("there is no quantity {:?}", name.get_ref()), hint);
        }
        quantity
    }

    fn remove(&mut self, key: &'static str) -> Option<Spanned<DeValue<'d>>> {
        self.known.push(key);
        let at = self.left.iter().position(|(k, _)| k.get_ref() == key)?;
        Some(self.left.swap_remove(at).1)
    }

    /// A field that may be absent. A value of another type is a mistake, and none.
    pub fn take<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<Spanned<T>> {
        if let Some(survey) = &self.survey {
            survey.field::<T>(key);
        }
        let value = self.remove(key)?;
        let span = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(Spanned::new(span, value)),
            Err(error) => {
                self.tell(error.span().unwrap_or(span), format!("{key}: {}", error.message()), "correct the value");
                None
            }
        }
    }

    /// A field that must be there. Its absence is a mistake, and none.
    pub fn need<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<Spanned<T>> {
        if let Some(survey) = &self.survey {
            survey.need(key);
        }
        self.expect(key, "…");
        self.take(key)
    }

    /// A field with a default.
    pub fn take_or<T: DeserializeOwned>(&mut self, key: &'static str, default: T) -> T {
        self.take(key).map_or(default, Spanned::into_inner)
    }

    /// A duration such as `"20ms"`, `"1.5s"`, `"10min"`, `"12h"`.
    pub fn take_duration(&mut self, key: &'static str) -> Option<Duration> {
        if let Some(survey) = &self.survey {
            survey.duration(key);
            return None;
        }
        let text: Spanned<String> = self.take(key)?;
        let duration = duration(text.get_ref());
        if duration.is_none() {
            let message = format!("{key}: {:?} is not a duration above zero", text.get_ref());
            self.tell(text.span(), message, "write a number and a unit, as in \"20ms\", \"5s\", \"10min\", \"12h\"");
        }
        duration
    }

    /// As [`Self::take_duration`], and not outside some bounds.
    pub fn take_duration_in(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Spanned<Duration>> {
        let written = self.left.iter().find(|(k, _)| k.get_ref() == key).map(|(_, value)| value.span());
        let span = written.unwrap_or(self.span());
        let duration = self.take_duration(key)?;
        if !bounds.contains(&duration) {
            let (least, most) = (bounds.start(), bounds.end());
            self.tell(span.clone(), format!("{key} is {duration:?}"), format!("give {least:?} to {most:?}"));
        }
        Some(Spanned::new(span, duration))
    }

    /// A table that may be absent.
    pub fn table(&mut self, key: &'static str) -> Option<Self> {
        if let Some(survey) = &self.survey {
            return Some(Self::surveyed(key, survey.table(key), self.told));
        }
        let value = self.remove(key)?;
        self.descend(&format!("[{key}]"), value)
    }

    /// A table that must be there.
    pub fn need_table(&mut self, key: &'static str) -> Option<Self> {
        if let Some(survey) = &self.survey {
            survey.need(key);
        } else if !self.has(key) {
            let message = format!("{} lacks the table [{key}]", self.title);
            self.tell(self.span(), message, format!("add [{key}]"));
        }
        self.table(key)
    }

    /// An array of tables, `[[key]]`; empty when absent.
    pub fn tables(&mut self, key: &'static str) -> Vec<Self> {
        if let Some(survey) = &self.survey {
            return vec![Self::surveyed(key, survey.tables(key), self.told)];
        }
        let Some(value) = self.remove(key) else { return Vec::new() };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(array) => {
                array.into_iter().filter_map(|value| self.descend(&format!("[[{key}]]"), value)).collect()
            }
            other => {
                self.tell(span, format!("{key} is {}", article(&other)), format!("write [[{key}]]"));
                Vec::new()
            }
        }
    }

    /// A table of tables, `[key.name]`, in the order of the file; empty when absent.
    pub fn named_tables(&mut self, key: &'static str) -> Vec<(Spanned<String>, Self)> {
        if let Some(survey) = &self.survey {
            let name = Spanned::new(0..0, String::new());
            return vec![(name, Self::surveyed(key, survey.named_tables(key), self.told))];
        }
        let Some(value) = self.remove(key) else { return Vec::new() };
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => table
                .into_iter()
                .filter_map(|(name, value)| {
                    let name = Spanned::new(name.span(), name.into_inner().into_owned());
                    let fields = self.descend(&format!("[{key}.{}]", name.get_ref()), value)?;
                    Some((name, fields))
                })
                .collect(),
            other => {
                self.tell(span, format!("{key} is {}", article(&other)), format!("write [{key}.name]"));
                Vec::new()
            }
        }
    }

    fn has(&self, key: &str) -> bool {
        self.left.iter().any(|(k, _)| k.get_ref() == key)
    }

    fn expect(&self, key: &str, example: &str) {
        if !self.has(key) {
            self.tell(self.span(), format!("{} lacks {key}", self.title), format!("add {key} = {example}"));
        }
    }

    fn descend(&self, title: &str, value: Spanned<DeValue<'d>>) -> Option<Self> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some(Self::new(title, span, table, self.told)),
            other => {
                self.tell(span, format!("{title} is {}", article(&other)), "write a table here");
                None
            }
        }
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        for (key, _) in &self.left {
            let known = self.known.iter().copied();
            self.tell(key.span(), format!("{} knows no {:?}", self.title, key.get_ref()), advise(key.get_ref(), known));
        }
    }
}

fn article(value: &DeValue<'_>) -> String {
    format!("of type {}, not a table", value.type_str())
}

/// Reads `"20ms"`, `"1.5s"`, `"10min"`, `"12h"`, `"7d"`; none for zero, for more than ten years, and for anything else.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at_checked(split)?;
    let unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "min" | "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let seconds = number.trim().parse::<f64>().ok()? * unit;
    (0.001..=10.0 * 366.0 * 86_400.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests;
