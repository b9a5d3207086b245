//! What a client keeps on the server under names of its own: prepared statements, and portals (statements with values). One
//! connection keeps them up to a bound; the next one is refused until others are closed.

use std::collections::HashMap;

use datafusion_postgres::pgwire::api::DEFAULT_NAME;
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::error::PgWireResult;
use datafusion_postgres::pgwire::messages::PgWireFrontendMessage;
use datafusion_postgres::pgwire::messages::extendedquery::TARGET_TYPE_BYTE_STATEMENT;

use super::guard::{TOO_MUCH, error};

/// Most of each kind. What drivers keep by themselves stays below: psycopg 100, the JDBC driver 256.
const NAMES_MAX: usize = 512;
/// Most bytes of each kind, names, texts and values together.
const BYTES_MAX: usize = 2 << 20;
/// A text counts at least so much for each of its words: of `1+1+1…` far more is kept than its text.
const WORD_BYTES: usize = 32;

/// What one connection keeps, as far as its messages tell.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    statements: Kept,
    portals: Kept,
}

/// Name → bytes.
#[derive(Debug, Default)]
struct Kept(HashMap<String, usize>);

/// What a message does to what is kept, once it went well.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Statement {
        name: String,
        bytes: usize,
    },
    Portal {
        name: String,
        bytes: usize,
    },
    CloseStatement(String),
    ClosePortal(String),
    CloseAllStatements,
    /// A transaction may end with it; portals end with theirs.
    End,
    Nothing,
}

impl Prepared {
    /// What a message is about to do.
    pub(super) fn step(&self, message: &PgWireFrontendMessage) -> Step {
        let named = |name: &Option<String>| name.as_deref().unwrap_or(DEFAULT_NAME).to_owned();
        match message {
            PgWireFrontendMessage::Parse(parse) => {
                let name = named(&parse.name);
                Step::Statement { bytes: name.len() + size(&parse.query), name }
            }
            PgWireFrontendMessage::Bind(bind) => {
                let name = named(&bind.portal_name);
                let values: usize = bind.parameters.iter().flatten().map(|value| value.len()).sum();
                // A portal keeps its statement, also when that is closed.
                let statement = self.statements.0.get(&named(&bind.statement_name)).copied().unwrap_or(0);
                Step::Portal { bytes: name.len() + values + statement, name }
            }
            PgWireFrontendMessage::Close(close) if close.target_type == TARGET_TYPE_BYTE_STATEMENT => {
                Step::CloseStatement(named(&close.name))
            }
            PgWireFrontendMessage::Close(close) => Step::ClosePortal(named(&close.name)),
            PgWireFrontendMessage::Query(query) => deallocated(&query.query).unwrap_or(Step::End),
            PgWireFrontendMessage::Sync(_) => Step::End,
            _ => Step::Nothing,
        }
    }

    /// Fails where there is no room for what a message brings.
    pub(super) fn check(&self, step: &Step) -> PgWireResult<()> {
        match step {
            Step::Statement { name, bytes } => self.statements.check("prepared statements", name, *bytes),
            Step::Portal { name, bytes } => self.portals.check("portals", name, *bytes),
            _ => Ok(()),
        }
    }

    /// A message went well.
    pub(super) fn done(&mut self, step: Step, is_in_transaction: bool, store: &impl PortalStore) {
        match step {
            Step::Statement { name, bytes } => drop(self.statements.0.insert(name, bytes)),
            Step::Portal { name, bytes } => drop(self.portals.0.insert(name, bytes)),
            Step::CloseStatement(name) => {
                self.statements.0.remove(&name);
                store.rm_statement(&name);
            }
            Step::ClosePortal(name) => drop(self.portals.0.remove(&name)),
            Step::CloseAllStatements => {
                self.statements.0.drain().for_each(|(name, _)| store.rm_statement(&name));
            }
            Step::End if !is_in_transaction => {
                self.portals.0.clear();
                store.clear_portals();
            }
            Step::End | Step::Nothing => {}
        }
    }
}

impl Kept {
    fn check(&self, what: &str, name: &str, bytes: usize) -> PgWireResult<()> {
        let others = self.0.iter().filter(|(other, _)| *other != name);
        let (n, kept) = others.fold((0, 0), |(n, kept), (_, bytes)| (n + 1, kept + bytes));
        if n < NAMES_MAX && kept + bytes <= BYTES_MAX {
            return Ok(());
        }
        let told = format!(
            "this connection has too many {what}: {NAMES_MAX} are kept, with {BYTES_MAX} bytes together; close some, or connect \
             anew"
        );
        Err(error(TOO_MUCH, told))
    }
}

fn size(text: &str) -> usize {
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80;
    // Signs are words of their own.
    let is_start = |pair: &[u8]| matches!(pair, [before, byte] if !(byte.is_ascii_whitespace() || is_of_word(before) && is_of_word(byte)));
    let n_words = 1 + text.as_bytes().windows(2).filter(|pair| is_start(pair)).count();
    text.len().max(n_words * WORD_BYTES)
}

/// What SQL by which statements are closed does, as psycopg says it.
fn deallocated(sql: &str) -> Option<Step> {
    let sql = sql.trim().trim_end_matches(';');
    let words: Vec<&str> = sql.split_whitespace().collect();
    let is = |word: &str, wanted: &str| word.eq_ignore_ascii_case(wanted);
    let name = match words.as_slice() {
        [first, all] if is(first, "discard") && is(all, "all") => all,
        [first, prepare, name] if is(first, "deallocate") && is(prepare, "prepare") => name,
        [first, name] if is(first, "deallocate") => name,
        _ => return None,
    };
    if is(name, "all") {
        return Some(Step::CloseAllStatements);
    }
    let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    Some(Step::CloseStatement(quoted.map_or_else(|| name.to_lowercase(), str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_counts_by_its_bytes_or_its_words() {
        for (text, expected) in [("", 32), ("SELECT 1", 64), ("1+1", 96), ("a_b  'c'", 128)] {
            assert_eq!(size(text), expected, "{text}");
        }
        let long = format!("SELECT '{}'", "x".repeat(1_000));
        assert_eq!(size(&long), long.len());
    }

    #[test]
    fn statements_are_closed_as_clients_say_it() {
        for (sql, expected) in [
            ("DEALLOCATE _pg3_7", Some(Step::CloseStatement("_pg3_7".to_owned()))),
            ("deallocate prepare \"X\";", Some(Step::CloseStatement("X".to_owned()))),
            ("DEALLOCATE ALL", Some(Step::CloseAllStatements)),
            ("DISCARD ALL ;", Some(Step::CloseAllStatements)),
            ("SELECT 1", None),
            ("", None),
        ] {
            assert_eq!(deallocated(sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_one_may_take_the_place_of_another() {
        let mut kept = Kept::default();
        for n in 0..NAMES_MAX {
            kept.check("portals", &n.to_string(), 10).unwrap();
            kept.0.insert(n.to_string(), 10);
        }
        assert!(kept.check("portals", "one more", 10).is_err());
        kept.check("portals", "7", BYTES_MAX / 2).unwrap();
        assert!(kept.check("portals", "7", BYTES_MAX).is_err());
    }
}
