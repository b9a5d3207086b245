//! `carebed sql` without a statement: a prompt with history and completion. A statement ends with a semicolon.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use carebed_queries::sql::{self, SqlSession};
use reedline::{
    ColumnarMenu, DefaultCompleter, DefaultPrompt, DefaultPromptSegment, Emacs, FileBackedHistory, KeyCode,
    KeyModifiers, MenuBuilder as _, Reedline, ReedlineEvent, ReedlineMenu, Signal, ValidationResult, Validator,
    default_emacs_keybindings,
};
use tokio::sync::watch;

use crate::cli::{complain, say};
use crate::exit::Exit;
use crate::sql::terminal::TypedAhead;

/// Statements kept in the history file.
const HISTORY_MAX: usize = 1_000;
/// Rows shown in the terminal; files take more.
const SHOWN_MAX: usize = 1_000;
const MENU: &str = "completion";
const HELP: &str = "只读查询，以分号结束；\\d 列出各表，\\d 表名 列出各列，\\r 重新读取最新数据，Ctrl-C 中止查询，\\q 退出。\n\
    Only reading; end with a semicolon. \\d lists the tables, \\d NAME its columns, \\r reads the newest data, Ctrl-C stops a \
    statement, \\q leaves.";
const STOPPED: &str = "已中止 · stopped";
const TABLES: &str =
    "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1";
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

/// Tells of each Ctrl-C that comes as a signal, as while a statement runs. On a thread of its own: a statement may keep all others.
fn interrupts() -> anyhow::Result<watch::Receiver<()>> {
    let (tell, interrupts) = watch::channel(());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new().name("interrupts".to_owned()).spawn(move || {
        runtime.block_on(async { while tokio::signal::ctrl_c().await.is_ok() && tell.send(()).is_ok() {} });
    })?;
    Ok(interrupts)
}

pub(super) async fn run(data: &Path) -> anyhow::Result<Exit> {
    let mut session = super::session(data).await?;
    let words = words(&session).await?;
    let mut interrupts = interrupts()?;
    let _terminal = TypedAhead::keep();
    let mut editor = tokio::task::spawn_blocking(move || editor(words)).await??;
    say(HELP);
    loop {
        // Those that come from here on, also before the statement has begun, are for the next one.
        interrupts.mark_unchanged();
        // The editor blocks on the terminal: it waits on a thread where waiting is allowed.
        let (back, signal) = tokio::task::spawn_blocking(move || {
            let prompt =
                DefaultPrompt::new(DefaultPromptSegment::Basic("carebed".to_owned()), DefaultPromptSegment::Empty);
            let signal = editor.read_line(&prompt);
            // At once: whatever ends the program, what was asked is remembered.
            let _kept = editor.sync_history();
            (editor, signal)
        })
        .await?;
        editor = back;
        let text = match signal.context("failed to read from the terminal")? {
            Signal::Success(text) => text,
            Signal::CtrlC => continue,
            _ => return Ok(Exit::Done),
        };
        let statements = match text.trim() {
            "" => continue,
            "\\q" | "exit" | "quit" => return Ok(Exit::Done),
            "\\r" => {
                tokio::select! {
                    newest = super::session(data) => session = newest?,
                    Ok(()) = interrupts.changed() => complain(STOPPED),
                }
                continue;
            }
            "\\?" | "\\h" | "help" => {
                say(HELP);
                continue;
            }
            "\\d" | "\\dt" | "\\dv" => vec![TABLES.to_owned()],
            text => match text.strip_prefix("\\d ") {
                Some(table) => vec![format!("DESCRIBE {table}")],
                None if text.starts_with('\\') => {
                    complain(&format!("没有这个命令 · no such command: {text}\n{HELP}"));
                    continue;
                }
                None => match sql::statements(text) {
                    Ok(statements) => statements.into_iter().map(|written| written.sql).collect(),
                    Err(error) => {
                        complain(&format!("error: {error}"));
                        continue;
                    }
                },
            },
        };
        let shown = async {
            for statement in &statements {
                show(&session, statement).await;
            }
        };
        // While statements run the terminal sends Ctrl-C as a signal, which would end the program.
        tokio::select! {
            () = shown => {}
            Ok(()) = interrupts.changed() => complain(STOPPED),
        }
    }
}

async fn show(session: &SqlSession, statement: &str) {
    let shown = async {
        let mut answer = session.run(statement).await?;
        let (n_rows, more) = (answer.rows(), if answer.cut { ">" } else { "" });
        answer.keep(SHOWN_MAX);
        let mut bytes = Vec::new();
        sql::write(&answer, sql::Format::Table, &mut bytes)?;
        anyhow::Ok((bytes, n_rows, more))
    };
    match shown.await {
        Ok((bytes, n_rows, more)) => {
            say(&format!("{}\n{more}{n_rows} rows", String::from_utf8_lossy(&bytes).trim_end()));
            if n_rows > SHOWN_MAX {
                say(&format!(
                    "显示前 {SHOWN_MAX} 行，全部请用 -c … -o 文件 · the first {SHOWN_MAX}; all of them: -c … -o FILE"
                ));
            }
        }
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
        .with_quick_completions(true)
        .with_partial_completions(true)
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
