//! What is said to one device that speaks frames of its own, and whether it is still there. Pure; times are wire time since
//! an arbitrary start.
//!
//! After each opening of the line, and whenever the device says that it has started anew, its start-up sequence is said
//! and everything that can be asked is asked: many devices report changes only and forget their settings. Then questions
//! come by their period, and commands before them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use carebed_device_profiles::decoder::{Decoded, Decoder};
use carebed_device_profiles::profile::{Expect, Profile, Send, Transmission};

use crate::home::Board;
use crate::link::{NotConfirmed, Silence, Write};

/// Things that wait to be said to one device; one more command is refused, one more question is left out.
const JOBS_MAX: usize = 64;
/// A device that says nothing for so long is silent, unless its profile knows better. The slowest heartbeat of a profiled
/// device is one minute.
const SILENT_AFTER: Duration = Duration::from_secs(180);
/// A device that starts anew more often is not set up each time: the set-up itself may be what restarts it.
const SETUP_EVERY: Duration = Duration::from_secs(20);
/// A device that does not answer is asked at most this often.
const FAILING_EVERY: Duration = Duration::from_secs(1);
/// After so long without a byte an unfinished frame is looked at as cut off.
const CUT_OFF_AFTER: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Do {
    /// Send this.
    Say(Vec<u8>),
    /// Tell that nothing was heard.
    Silent(Silence),
    /// Tell that what the home shows did not reach its output.
    NotShown { board: usize, output: usize, why: NotConfirmed },
    /// Tell what became of a command.
    Written { id: String, result: Result<(), NotConfirmed> },
}

/// The talk with one device.
#[derive(Debug)]
pub(super) struct Dialogue {
    profile: Arc<Profile>,
    address: Option<String>,
    /// How long an answer may take.
    timeout: Duration,
    decoder: Decoder,
    jobs: VecDeque<Job>,
    waiting: Option<Waiting>,
    questions: Vec<Question>,
    /// Nothing is said before.
    not_before: Duration,
    is_woken: bool,
    /// When something good was heard last, or hope began.
    last_good: Duration,
    last_byte: Duration,
    silent_told: Duration,
    set_up: Option<Duration>,
    failed: Option<(u32, Duration)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Job {
    /// A step of the start-up, and how often it was tried.
    Step(usize, u8),
    /// An index into the questions.
    Ask(usize),
    Write(Write),
}

#[derive(Debug)]
struct Waiting {
    job: Job,
    expect: Awaited,
    deadline: Duration,
}

#[derive(Debug)]
enum Awaited {
    Frame(Expect),
    Message(usize),
}

#[derive(Debug)]
struct Question {
    message: usize,
    every: Option<Duration>,
    due: Duration,
}

impl Dialogue {
    pub(super) fn new(board: &Board) -> Self {
        let Board { profile, address, every, .. } = board;
        let asked = profile.messages.iter().enumerate().filter(|(_, message)| message.query.is_some());
        let question = |(message, said): (usize, &carebed_device_profiles::profile::Message)| Question {
            message,
            every: said.every.map(|profiled| (*every).unwrap_or(profiled)),
            due: Duration::ZERO,
        };
        Self {
            questions: asked.map(question).collect(),
            decoder: Decoder::at(Arc::clone(profile), address.as_deref()),
            address: address.clone(),
            timeout: board.timeout(),
            profile: Arc::clone(profile),
            jobs: VecDeque::new(),
            waiting: None,
            not_before: Duration::ZERO,
            is_woken: false,
            last_good: Duration::ZERO,
            last_byte: Duration::ZERO,
            silent_told: Duration::ZERO,
            set_up: None,
            failed: None,
        }
    }

    /// The line is open: everything is said anew.
    pub(super) fn opened(&mut self, now: Duration) {
        self.decoder = Decoder::at(Arc::clone(&self.profile), self.address.as_deref());
        self.waiting = None;
        (self.last_byte, self.set_up) = (now, None);
        self.set_up(now);
    }

    /// The line was lost, or cannot be opened.
    pub(super) fn lost(&mut self, now: Duration, why: &str) -> Vec<Do> {
        self.jobs.extend(self.waiting.take().map(|waiting| waiting.job));
        let jobs = std::mem::take(&mut self.jobs);
        let mut done: Vec<Do> = jobs.into_iter().filter_map(|job| refused(job, why)).collect();
        done.push(self.fail(now, why.to_owned()));
        done
    }

    /// A command; it goes before questions.
    pub(super) fn write(&mut self, write: Write) -> Option<Do> {
        if self.jobs.len() >= JOBS_MAX {
            return refused(Job::Write(write), "too much waits to be said to the device");
        }
        self.jobs.push_front(Job::Write(write));
        None
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Takes bytes off the line: what they mean, and what is done now.
    pub(super) fn heard(&mut self, bytes: &[u8], now: Duration) -> (Decoded, Vec<Do>) {
        let decoded = self.decoder.push(bytes, now);
        let mut done = Vec::new();
        if !bytes.is_empty() {
            self.last_byte = now;
        }
        if !decoded.frames.is_empty() {
            (self.last_good, self.failed) = (now, None);
        }
        let answers = |waiting: &Waiting| match &waiting.expect {
            Awaited::Message(message) => decoded.messages.contains(message),
            Awaited::Frame(expect) => decoded.frames.iter().any(|frame| self.profile.answers(expect, frame)),
        };
        if self.waiting.as_ref().is_some_and(answers)
            && let Some(waiting) = self.waiting.take()
        {
            done.extend(self.over(waiting.job, now, true));
        }
        if decoded.restarted {
            tracing::info!(profile = %self.profile.name, "the device has started anew");
            self.set_up(now);
        }
        (decoded, done)
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn due(&self) -> Duration {
        let asked = self.questions.iter().filter(|question| question.every.is_some()).map(|question| question.due);
        let next = match &self.waiting {
            Some(waiting) => Some(waiting.deadline),
            None if !self.jobs.is_empty() => Some(self.not_before),
            None => asked.min().map(|due| due.max(self.not_before)),
        };
        let cut_off = self.decoder.is_waiting().then_some(self.last_byte + CUT_OFF_AFTER);
        let silent = self.last_good.max(self.silent_told) + self.silent_after();
        [next, cut_off].into_iter().flatten().fold(silent, Duration::min)
    }

    /// Time has passed. `may_speak`: nobody else on the line is waiting for an answer.
    pub(super) fn tick(&mut self, now: Duration, may_speak: bool) -> Vec<Do> {
        let mut done = Vec::new();
        if let Some(waiting) = self.waiting.take_if(|waiting| now >= waiting.deadline) {
            done.extend(self.gave_up(waiting.job, now));
        }
        if now >= self.last_good.max(self.silent_told) + self.silent_after() {
            self.silent_told = now;
            let lasted = now.saturating_sub(self.last_good);
            done.push(Do::Silent(Silence { cycles: u32::MAX, lasted, why: format!("nothing heard for {lasted:.0?}") }));
            // Perhaps it was replaced, or lost its power without saying so.
            self.set_up(now);
        }
        if self.waiting.is_none() && may_speak && now >= self.not_before {
            self.ask_what_is_due(now);
            if let Some(job) = self.jobs.pop_front() {
                done.extend(self.begin(job, now));
            }
        }
        done
    }

    fn silent_after(&self) -> Duration {
        self.profile.report.silent_after.unwrap_or(SILENT_AFTER)
    }

    fn set_up(&mut self, now: Duration) {
        if self.set_up.is_some_and(|at| now < at + SETUP_EVERY) {
            return;
        }
        self.set_up = Some(now);
        self.jobs.retain(|job| matches!(job, Job::Write(_)));
        self.jobs.extend((0..self.profile.startup.len()).map(|step| Job::Step(step, 0)));
        for (index, question) in self.questions.iter_mut().enumerate() {
            self.jobs.push_back(Job::Ask(index));
            question.due = now + question.every.unwrap_or_default();
        }
    }

    fn ask_what_is_due(&mut self, now: Duration) {
        let slow = if self.failed.is_some_and(|(cycles, _)| cycles >= 2) { FAILING_EVERY } else { Duration::ZERO };
        for (index, question) in self.questions.iter_mut().enumerate() {
            let Some(every) = question.every.filter(|_| now >= question.due) else { continue };
            question.due = now + every.max(slow).max(Duration::from_millis(1));
            if self.jobs.len() < JOBS_MAX && !self.jobs.contains(&Job::Ask(index)) {
                self.jobs.push_back(Job::Ask(index));
            }
        }
    }

    fn begin(&mut self, job: Job, now: Duration) -> Vec<Do> {
        let (send, expect, timeout) = match &job {
            Job::Step(step, _) => {
                let Some(step) = self.profile.startup.get(*step) else { return Vec::new() };
                (step.send.clone(), step.expect.clone().map(Awaited::Frame), step.timeout)
            }
            Job::Ask(question) => {
                let Some(Question { message, .. }) = self.questions.get(*question) else { return Vec::new() };
                let send = self.profile.messages.get(*message).and_then(|message| message.query.clone());
                (send, Some(Awaited::Message(*message)), None)
            }
            Job::Write(write) => {
                let output = self.profile.outputs.get(write.output);
                let Some(send) = output.and_then(|output| output.send(write.value)).cloned() else {
                    return refused(job, "the output cannot be set so").into_iter().collect();
                };
                let expect = send.expect().cloned().map(Awaited::Frame);
                (Some(send), expect, None)
            }
        };
        let bytes = match send.as_ref().map(|send| self.bytes(send)) {
            None => Vec::new(),
            Some(Ok(bytes)) => bytes,
            Some(Err(why)) => return refused(job, &why).into_iter().collect(),
        };
        if let Some((wake, pause)) = self.profile.link.wake.as_ref().filter(|_| !bytes.is_empty() && !self.is_woken) {
            (self.is_woken, self.not_before) = (true, now + *pause);
            self.jobs.push_front(job);
            return vec![Do::Say(wake.clone())];
        }
        self.is_woken = false;
        let mut done = Vec::new();
        if !bytes.is_empty() {
            done.push(Do::Say(bytes));
        }
        match expect {
            Some(expect) => {
                let deadline = now + timeout.unwrap_or(self.timeout);
                self.waiting = Some(Waiting { job, expect, deadline });
            }
            None => done.extend(self.over(job, now, false)),
        }
        done
    }

    fn bytes(&self, send: &Send) -> Result<Vec<u8>, String> {
        match send.encode(&self.profile, self.address.as_deref()) {
            Ok(Transmission::Bytes(bytes)) => Ok(bytes),
            Ok(_) => Err("it does not go over this line".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A job is done; `confirmed`: the device has said so.
    fn over(&mut self, job: Job, now: Duration, confirmed: bool) -> Option<Do> {
        self.not_before = now + self.profile.link.gap;
        match job {
            Job::Step(step, _) => {
                self.not_before += self.profile.startup.get(step).map_or(Duration::ZERO, |step| step.pause);
                None
            }
            Job::Ask(_) => None,
            Job::Write(Write { id, .. }) => {
                let unknown = || NotConfirmed::Sent("the device does not answer to this".to_owned());
                Some(Do::Written { id, result: if confirmed { Ok(()) } else { Err(unknown()) } })
            }
        }
    }

    fn gave_up(&mut self, job: Job, now: Duration) -> Option<Do> {
        self.not_before = now + self.profile.link.gap;
        match job {
            Job::Step(step, tried) => {
                let tries = self.profile.startup.get(step).map_or(0, |step| step.tries);
                if tried + 1 < tries {
                    self.jobs.push_front(Job::Step(step, tried + 1));
                } else {
                    tracing::warn!(profile = %self.profile.name, step, "a step of the start-up was not answered");
                }
                None
            }
            Job::Ask(_) => Some(self.fail(now, format!("no answer within {:?}", self.timeout))),
            job @ Job::Write(_) => refused(job, &format!("no answer within {:?}", self.timeout)),
        }
    }

    fn fail(&mut self, now: Duration, why: String) -> Do {
        let (cycles, since) = self.failed.unwrap_or((0, now));
        let cycles = cycles.saturating_add(1);
        self.failed = Some((cycles, since));
        Do::Silent(Silence { cycles, lasted: now.saturating_sub(since), why })
    }
}

fn refused(job: Job, why: &str) -> Option<Do> {
    let why = NotConfirmed::Failed(why.to_owned());
    match job {
        Job::Write(Write { id, board, output, .. }) if id.is_empty() => Some(Do::NotShown { board, output, why }),
        Job::Write(Write { id, .. }) => Some(Do::Written { id, result: Err(why) }),
        _ => None,
    }
}
