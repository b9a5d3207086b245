//! Real programs, started, killed and started again by a test.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

/// A program of ours and how to start it. It ends with the test.
#[derive(Debug)]
pub struct Program {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, PathBuf)>,
    log: PathBuf,
    child: Option<Child>,
    /// How it ended by itself the last time.
    status: Option<ExitStatus>,
}

impl Program {
    /// Names a program; nothing runs yet. What it says on stderr is appended to `log`.
    #[must_use]
    pub fn new(program: &Path, arguments: &[&str], log: &Path) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            environment: Vec::new(),
            log: log.to_owned(),
            child: None,
            status: None,
        }
    }

    /// Sets an environment variable for it.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &Path) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Starts it. With `crash_at` it aborts when it first reaches that crash point.
    pub fn start(&mut self, crash_at: Option<&str>) -> std::io::Result<()> {
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        // Through a pipe, so that a program whose disk is full can still say so. The thread ends with the program.
        let (mut says, pipe) = std::io::pipe()?;
        std::thread::spawn(move || std::io::copy(&mut says, &mut log));
        // The signal for [`Program::fill_disk`] is passed over, so that a refused write is an error and not the end.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(pipe.try_clone()?).stderr(pipe).kill_on_drop(true);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        match crash_at {
            Some(point) => command.env("CAREBED_CRASH_AT", point),
            None => command.env_remove("CAREBED_CRASH_AT"),
        };
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// Ends it at once (SIGKILL) and waits until it is gone.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already.
            let _ended = child.kill().await;
        }
    }

    /// From now on the program's writes end at this many bytes of a file, the last one short: to it every disk is full.
    /// None makes room again.
    pub async fn fill_disk(&self, at: Option<u64>) -> std::io::Result<()> {
        let Some(id) = self.id() else { return Ok(()) };
        let limit = at.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let limit = format!("--fsize={limit}:unlimited");
        let status = Command::new("prlimit").args(["--pid", &id.to_string(), &limit]).status().await?;
        // A program that has just died has no disk either.
        if status.success() || !Path::new(&format!("/proc/{id}")).exists() {
            return Ok(());
        }
        Err(std::io::Error::other(format!("prlimit {limit} ended with {status}")))
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Waits until it ends by itself, as after an abort; none when it is still there after `within`.
    pub async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let status = tokio::time::timeout(within, child.wait()).await.ok()?.ok();
        self.child = None;
        status
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        let Some(child) = &mut self.child else { return false };
        let ended = child.try_wait();
        if let Ok(Some(status)) = ended {
            self.status = Some(status);
        }
        matches!(ended, Ok(None))
    }

    /// How it ended, and its last words.
    #[must_use]
    pub fn last_words(&self) -> String {
        let status = self.status.map_or_else(|| "killed".to_owned(), |status| status.to_string());
        format!("{status}; last it said: {}", self.said().lines().last().unwrap_or_default())
    }

    /// What it has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Asks again and again until there is an answer; none after `within`.
pub async fn until<T, F>(within: Duration, mut ask: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + within;
    loop {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        if tokio::time::Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}
