//! Who may ask: a TOML file of users with salted passwords and the areas they may read.
//!
//! ```toml
//! [[user]]
//! name = "analyst"
//! password = "scram-sha-256$4096$<salt>$<salted password>"   # made by `carebed users add`
//! areas = ["310104"]                                          # or ["*"]
//! ```
//!
//! It is looked at whenever somebody connects or asks, and read again when it has changed: whoever is no user any more, or may read
//! something else, has to sign in again.
//!
//! A salted password lets its holder sign in: keep the file readable to the centre only.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carebed_contract::id::Area;
use datafusion_postgres::pgwire::api::auth::sasl::scram::{SCRAM_ITERATIONS, gen_salted_password};
use datafusion_postgres::pgwire::api::auth::{AuthSource, LoginInfo, Password};
use datafusion_postgres::pgwire::error::PgWireResult;
use serde::Deserialize;

use crate::sql::Scope;

const SCHEME: &str = "scram-sha-256";
/// Bytes of salt; RFC 5802 leaves the number open, PostgreSQL uses 16.
const SALT_BYTES: usize = 16;

/// Someone who may ask.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// What they sign in as.
    pub name: String,
    /// What they may read.
    pub scope: Scope,
    salt: Vec<u8>,
    salted: Vec<u8>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// Everyone who may ask, by name.
#[derive(Debug, Clone, Default)]
pub struct Users(BTreeMap<String, User>);

/// A file of users: who may ask at this moment.
#[derive(Debug)]
pub struct UsersFile {
    path: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    users: Arc<Users>,
    /// The file as it was looked at last; none when it could not be.
    stamp: Option<Stamp>,
}

/// Changes whenever the file does: `carebed users` puts a new one in its place, editors write into the old.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self { inode: found.ino(), bytes: found.len(), modified: (found.mtime(), found.mtime_nsec()) })
    }
}

impl UsersFile {
    /// Reads a file of users.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn open(path: &Path) -> Result<Self, UsersError> {
        // Looked at before it is read: what changes in between is read again.
        let stamp = Stamp::of(path);
        let users = Arc::new(Users::load(path)?);
        Ok(Self { path: path.to_owned(), read: Mutex::new(Read { users, stamp }) })
    }

    /// Who may ask now. While the file is away or has mistakes, those who were in it before; that is told once.
    #[must_use]
    pub fn now(&self) -> Arc<Users> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(&self.path);
        if read.stamp != stamp {
            match Users::load(&self.path) {
                Ok(users) => {
                    tracing::info!(path = %self.path.display(), n_users = users.0.len(), "the users of SQL were read again");
                    read.users = Arc::new(users);
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "the users of SQL stay as they were: mend their file");
                }
            }
            read.stamp = stamp;
        }
        Arc::clone(&read.users)
    }
}

/// Why a file of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It cannot be read.
    #[error("failed to read the users of SQL from {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What it says is wrong.
    #[error("{path} cannot be used:\n{message}")]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// All that is wrong, with lines where it is the writing.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    user: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    password: String,
    areas: Vec<String>,
}

impl Users {
    /// Reads a file of users.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| UsersError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|message| UsersError::Mistakes { path: path.to_owned(), message })
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let document: Document = toml::from_str(text).map_err(|error| error.to_string())?;
        let (mut users, mut mistakes) = (BTreeMap::new(), Vec::new());
        for entry in document.user {
            let name = entry.name.clone();
            match entry.check() {
                Ok(user) => {
                    if users.insert(name.clone(), user).is_some() {
                        mistakes.push(format!("user {name:?} stands there twice"));
                    }
                }
                Err(mistake) => mistakes.push(format!("user {name:?}: {mistake}")),
            }
        }
        if mistakes.is_empty() { Ok(Self(users)) } else { Err(mistakes.join("\n")) }
    }

    /// One user.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&User> {
        self.0.get(name)
    }
}

impl Entry {
    fn check(self) -> Result<User, String> {
        if self.name.is_empty() || self.name.chars().any(char::is_control) {
            return Err("a name needs at least one visible character".to_owned());
        }
        let scope = match self.areas.as_slice() {
            [] => return Err("areas is empty: name areas, or [\"*\"] for all".to_owned()),
            [all] if all == "*" => Scope::All,
            areas => {
                let area = |area: &String| Area::new(area).map_err(|error| format!("area {area:?}: {error}"));
                Scope::Areas(areas.iter().map(area).collect::<Result<_, _>>()?)
            }
        };
        let (salt, salted) = read_password(&self.password)
            .ok_or("the password is not one that `carebed users add` made (scram-sha-256$4096$…)")?;
        Ok(User { name: self.name, scope, salt, salted })
    }
}

fn read_password(text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut parts = text.split('$');
    let scheme = (parts.next()?, parts.next()?.parse::<usize>().ok()?);
    let (salt, salted) = (STANDARD.decode(parts.next()?).ok()?, STANDARD.decode(parts.next()?).ok()?);
    (scheme == (SCHEME, SCRAM_ITERATIONS) && parts.next().is_none() && !salt.is_empty() && salted.len() == 32)
        .then_some((salt, salted))
}

/// The salted form of a password, for the file of users.
#[must_use]
pub fn password_line(password: &str) -> String {
    let salt: [u8; SALT_BYTES] = rand::random();
    let salted = gen_salted_password(password, &salt, SCRAM_ITERATIONS);
    format!("{SCHEME}${SCRAM_ITERATIONS}${}${}", STANDARD.encode(salt), STANDARD.encode(salted))
}

#[expect(elided_lifetimes_in_paths, reason = "the trait's method is written so, and its lifetimes must match")]
#[async_trait]
impl AuthSource for Users {
    /// An unknown name gets a password that nobody has, so that names cannot be found out.
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        let known = login.user().and_then(|name| self.get(name));
        Ok(match known {
            Some(user) => Password::new(Some(user.salt.clone()), user.salted.clone()),
            None => {
                let (salt, salted): ([u8; SALT_BYTES], [u8; 32]) = (rand::random(), rand::random());
                Password::new(Some(salt.to_vec()), salted.to_vec())
            }
        })
    }
}
