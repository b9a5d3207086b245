//! `carebed sql` without a statement: a prompt with history and completion. A statement ends with a semicolon.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use carebed_queries::sql::{self, SqlSession};
use reedline::{
    ColumnarMenu, DefaultCompleter, DefaultPrompt, DefaultPromptSegment, Emacs, FileBackedHistory, KeyCode,
    KeyModifiers, MenuBuilder as _, Reedline, ReedlineEvent, ReedlineMenu, Signal, ValidationResult, Validator,
    default_emacs_keybindings,
};

use crate::cli::{complain, say};
use crate::exit::Exit;

/// Statements kept in the history file.
const HISTORY_MAX: usize = 1_000;
const MENU: &str = "completion";
const KEYWORDS: &str = "SELECT FROM WHERE GROUP BY ORDER LIMIT JOIN LEFT ON AS AND OR NOT NULL IS IN BETWEEN LIKE WITH UNION ALL \
    DISTINCT HAVING CASE WHEN THEN ELSE END CAST INTERVAL TIMESTAMP DATE EXPLAIN ANALYZE SHOW TABLES DESCRIBE DESC ASC OVER \
    PARTITION COUNT SUM AVG MIN MAX MEDIAN FILTER";

/// Incomplete until its semicolon, so that Enter begins a new line.
struct Semicolon;

impl Validator for Semicolon {
    fn validate(&self, text: &str) -> ValidationResult {
        let text = text.trim();
        let command = text.is_empty() || text.starts_with('\\') || matches!(text, "exit" | "quit" | "help");
        if command || text.ends_with(';') { ValidationResult::Complete } else { ValidationResult::Incomplete }
    }
}

pub(super) async fn run(data: &Path) -> anyhow::Result<Exit> {
    let mut session = super::session(data).await?;
    let words = words(&session).await?;
    let mut editor = tokio::task::spawn_blocking(move || editor(words)).await??;
    say(
        "只读查询，以分号结束；\\d 列出各表，\\r 重新读取最新数据，\\q 退出。\nOnly reading; end with a semicolon. \\d lists the tables, \\r reads the newest data, \\q leaves.",
    );
    loop {
        // The editor blocks on the terminal: it waits on a thread where waiting is allowed.
        let (back, signal) = tokio::task::spawn_blocking(move || {
            let prompt =
                DefaultPrompt::new(DefaultPromptSegment::Basic("carebed".to_owned()), DefaultPromptSegment::Empty);
            let signal = editor.read_line(&prompt);
            (editor, signal)
        })
        .await?;
        editor = back;
        let text = match signal.context("failed to read from the terminal")? {
            Signal::Success(text) => text,
            Signal::CtrlC => continue,
            _ => return Ok(Exit::Done),
        };
        match text.trim() {
            "" => {}
            "\\q" | "exit" | "quit" => return Ok(Exit::Done),
            "\\r" => session = super::session(data).await?,
            "\\d" | "help" => show(
                &session,
                "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1",
            )
            .await,
            text => match text.strip_prefix("\\d ") {
                Some(table) => show(&session, &format!("DESCRIBE {table}")).await,
                None => match sql::statements(text) {
                    Ok(statements) => {
                        for statement in statements {
                            show(&session, &statement.sql).await;
                        }
                    }
                    Err(error) => complain(&format!("error: {error}")),
                },
            },
        }
    }
}

async fn show(session: &SqlSession, statement: &str) {
    let mut bytes = Vec::new();
    let shown = async {
        let answer = session.run(statement).await?;
        let n_rows = answer.rows();
        super::write(&answer, sql::Format::Table, &mut bytes)?;
        anyhow::Ok(n_rows)
    };
    match shown.await {
        Ok(n_rows) => say(&format!("{}\n{n_rows} rows", String::from_utf8_lossy(&bytes).trim_end())),
        Err(error) => complain(&format!("error: {error:#}")),
    }
}

/// Everything that can be completed: tables, columns, keywords.
async fn words(session: &SqlSession) -> anyhow::Result<Vec<String>> {
    let names = "SELECT DISTINCT table_name FROM information_schema.columns UNION SELECT DISTINCT column_name FROM information_schema.columns WHERE table_schema = 'public'";
    let answer = session.run(names).await?;
    let mut bytes = Vec::new();
    sql::write(&answer, sql::Format::Csv, &mut bytes)?;
    let names = String::from_utf8_lossy(&bytes);
    let mut words: Vec<String> = names.lines().skip(1).map(str::to_owned).collect();
    words.extend(KEYWORDS.split_whitespace().flat_map(|word| [word.to_owned(), word.to_lowercase()]));
    Ok(words)
}

fn editor(words: Vec<String>) -> anyhow::Result<Reedline> {
    let mut completer = DefaultCompleter::with_inclusions(&['_']).set_min_word_len(2);
    completer.insert(words);
    let mut keys = default_emacs_keybindings();
    keys.add_binding(
        KeyModifiers::NONE,
        KeyCode::Tab,
        ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext]),
    );
    let mut editor = Reedline::create()
        .with_validator(Box::new(Semicolon))
        .with_completer(Box::new(completer))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(ColumnarMenu::default().with_name(MENU))))
        .with_edit_mode(Box::new(Emacs::new(keys)));
    if let Some(path) = history_file() {
        match FileBackedHistory::with_file(HISTORY_MAX, path.clone()) {
            Ok(history) => editor = editor.with_history(Box::new(history)),
            Err(error) => complain(&format!("warning: {} cannot keep the history: {error}", path.display())),
        }
    }
    Ok(editor)
}

/// `$XDG_STATE_HOME/carebed/sql_history`, by default below `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    Some(state.join("carebed").join("sql_history"))
}
