//! Areas, homes, beds and people. The only place in carebed that knows a name, a phone number or an address.

mod registrations;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use carebed_contract::finding::Subject;
use carebed_contract::id::{Area, BedId, DeviceId, GatewayId, HomeId};
use carebed_contract::text::Text;
use carebed_contract::time::Timestamp;
use chrono_tz::Tz;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::database::{Database, DatabaseError};

pub use registrations::{Kind, Registered, Registration};

/// Where a home is taken to be when nothing else is known.
pub const TIME_ZONE: Tz = chrono_tz::Asia::Shanghai;

/// A dwelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Its id.
    pub id: HomeId,
    /// The area in which its gateway was enrolled. It has to be there before the home.
    pub area: Area,
    /// Its gateway; none when another home has it now.
    pub gateway: Option<GatewayId>,
    /// What operators call it; no person's name.
    pub name: String,
    /// Of its local days.
    pub time_zone: Tz,
    /// How many people live there.
    pub residents: u8,
    /// The lamp that says "help is coming"; a home without one gets no answer that can be seen.
    pub lamp: Option<DeviceId>,
    /// Its beds.
    pub beds: Vec<Bed>,
}

/// A monitored bed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bed {
    /// Its id.
    pub id: BedId,
    /// What operators call it.
    pub name: String,
    /// Who lies in it.
    pub person: Option<Person>,
}

/// What an operator needs to reach a person. It does not show itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Person {
    /// Name.
    pub name: String,
    /// Phone number.
    pub phone: String,
    /// Address.
    pub address: String,
}

impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Person").finish_non_exhaustive()
    }
}

/// What became of the word of a home on itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// As the home is registered now.
    pub home: Arc<Home>,
    /// Homes that had its gateway or one of its beds until now, as they are registered now.
    pub robbed: Vec<Arc<Home>>,
}

/// Why something was not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The gateway serves another home.
    #[error("gateway {gateway} already serves home {home}: give it to one home only")]
    GatewayTaken {
        /// The gateway.
        gateway: GatewayId,
        /// The home that has it.
        home: HomeId,
    },
    /// The bed stands in another home.
    #[error("bed {bed} already stands in home {home}: bed ids are unique in the whole centre")]
    BedTaken {
        /// The bed.
        bed: BedId,
        /// The home that has it.
        home: HomeId,
    },
    /// No such area.
    #[error("home {home} is in area {area}, which is not registered: register the area first")]
    NoArea {
        /// The home.
        home: HomeId,
        /// The missing area.
        area: Area,
    },
    /// The database failed.
    #[error("the registry was not changed")]
    Database(#[from] DatabaseError),
}

#[derive(Debug, Default)]
struct Known {
    areas: BTreeMap<Area, Text>,
    homes: BTreeMap<HomeId, Arc<Home>>,
    /// Beds with a person that their home does not list any more.
    unlisted: BTreeMap<(HomeId, BedId), Bed>,
    registrations: Vec<Registration>,
    /// Of the pseudonyms; none in a database that is only read and was written before there were any.
    key: Vec<u8>,
}

/// The registry; clones share it. Read from memory, written through to the database.
#[derive(Debug, Clone)]
pub struct Registry {
    database: Database,
    known: Arc<RwLock<Known>>,
    /// Held from reading what is changed to its being written.
    changing: Arc<tokio::sync::Mutex<()>>,
}

fn query(doing: &'static str) -> impl Fn(sqlx::Error) -> DatabaseError {
    move |source| DatabaseError::Query { doing, source }
}

impl Registry {
    /// Reads what the database holds.
    pub async fn load(database: &Database) -> Result<Self, DatabaseError> {
        let failed = query("read the registry");
        let pool = &database.pool;
        let mut known = Known::default();
        for row in sqlx::query("SELECT id, name_zh, name_en FROM areas").fetch_all(pool).await.map_err(&failed)? {
            known.areas.insert(read(&row, 0)?, Text::new(row.get::<String, _>(1), row.get::<String, _>(2)));
        }
        let mut beds: BTreeMap<String, Vec<Bed>> = BTreeMap::new();
        let select = "SELECT b.home, b.id, b.name, p.name, p.phone, p.address
            FROM beds b LEFT JOIN persons p ON p.bed = b.id ORDER BY b.rowid";
        for row in sqlx::query(select).fetch_all(pool).await.map_err(&failed)? {
            let person = row.get::<Option<String>, _>(3);
            let person = person.map(|name| Person { name, phone: row.get(4), address: row.get(5) });
            beds.entry(row.get(0)).or_default().push(Bed { id: read(&row, 1)?, name: row.get(2), person });
        }
        let select = "SELECT h.id, h.area, g.id, h.time_zone, h.lamp, h.name, h.residents
            FROM homes h LEFT JOIN gateways g ON g.home = h.id";
        for row in sqlx::query(select).fetch_all(pool).await.map_err(&failed)? {
            let id: HomeId = read(&row, 0)?;
            let home = Home {
                area: read(&row, 1)?,
                gateway: row.get::<Option<String>, _>(2).map(|_| read(&row, 2)).transpose()?,
                time_zone: read(&row, 3)?,
                lamp: row.get::<Option<String>, _>(4).map(|_| read(&row, 4)).transpose()?,
                name: row.get(5),
                residents: row.get(6),
                beds: beds.remove(id.as_str()).unwrap_or_default(),
                id: id.clone(),
            };
            known.homes.insert(id, Arc::new(home));
        }
        let has = "SELECT count(*) FROM sqlite_master WHERE name = 'unlisted_beds'";
        if sqlx::query_scalar::<_, i64>(has).fetch_one(pool).await.map_err(&failed)? == 1 {
            let select = "SELECT home, id, name, person, phone, address FROM unlisted_beds";
            for row in sqlx::query(select).fetch_all(pool).await.map_err(&failed)? {
                let person = Person { name: row.get(3), phone: row.get(4), address: row.get(5) };
                let bed = Bed { id: read(&row, 1)?, name: row.get(2), person: Some(person) };
                known.unlisted.insert((read(&row, 0)?, bed.id.clone()), bed);
            }
        }
        let has = "SELECT count(*) FROM sqlite_master WHERE name IN ('registrations', 'pseudonyms')";
        if sqlx::query_scalar::<_, i64>(has).fetch_one(pool).await.map_err(&failed)? == 2 {
            known.key = sqlx::query_scalar("SELECT key FROM pseudonyms").fetch_one(pool).await.map_err(&failed)?;
            let select = "SELECT kind, id, home, bed, area, valid_from, valid_to FROM registrations ORDER BY rowid";
            for row in sqlx::query(select).fetch_all(pool).await.map_err(&failed)? {
                known.registrations.push(registration(&row)?);
            }
        }
        Ok(Self { database: database.clone(), known: Arc::new(RwLock::new(known)), changing: Arc::default() })
    }

    /// Registers an area, or renames it.
    pub async fn put_area(&self, area: Area, name: Text) -> Result<(), RegistryError> {
        sqlx::query("INSERT INTO areas VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET name_zh = ?2, name_en = ?3")
            .bind(area.as_str())
            .bind(&name.zh)
            .bind(&name.en)
            .execute(&self.database.pool)
            .await
            .map_err(query("register an area"))?;
        self.write(|known| known.areas.insert(area, name));
        Ok(())
    }

    /// Registers a home with its gateway, beds and people from `now` on, or replaces what was known of it. All or nothing.
    pub async fn put_home(&self, home: Home, now: Timestamp) -> Result<(), RegistryError> {
        let _one_at_a_time = self.changing.lock().await;
        self.put(home, now).await
    }

    /// Changes what is registered of a home; false when there is no such home. Nobody changes it meanwhile.
    pub async fn change_home<E: From<RegistryError>>(
        &self,
        id: &HomeId,
        now: Timestamp,
        change: impl FnOnce(&mut Home) -> Result<(), E>,
    ) -> Result<bool, E> {
        let _one_at_a_time = self.changing.lock().await;
        let Some(known) = self.home(id) else { return Ok(false) };
        let mut home = Home::clone(&known);
        change(&mut home)?;
        self.put(home, now).await?;
        Ok(true)
    }

    /// Registers a home as its own file describes it; none when it is registered so already. Names and people stay, also of a bed
    /// that was not listed for a while. The gateway says which home it serves: it is taken from the home that had it. A bed is taken when the
    /// file is in use since after the bed was registered elsewhere; its person is not, since nobody said who lies in it there.
    pub async fn install(
        &self,
        mut home: Home,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Installed>, RegistryError> {
        let _one_at_a_time = self.changing.lock().await;
        let known = self.home(&home.id);
        if let Some(known) = &known {
            home.name.clone_from(&known.name);
        }
        for bed in &mut home.beds {
            let listed = known.as_ref().and_then(|known| known.beds.iter().find(|known| known.id == bed.id).cloned());
            let key = (home.id.clone(), bed.id.clone());
            if let Some(known) = listed.or_else(|| self.read(|known| known.unlisted.get(&key).cloned())) {
                *bed = known;
            }
        }
        if known.is_some_and(|known| *known == home) {
            return Ok(None);
        }
        let mut robbed = Vec::new();
        for other in self.homes().into_iter().filter(|other| other.id != home.id) {
            let mut left = Home::clone(&other);
            left.gateway = left.gateway.filter(|gateway| Some(gateway) != home.gateway.as_ref());
            left.beds
                .retain(|bed| home.beds.iter().all(|own| own.id != bed.id) || !self.is_older(bed, &other.id, since));
            if left != *other {
                self.put(left, now).await?;
                robbed.extend(self.home(&other.id));
            }
        }
        self.put(home.clone(), now).await?;
        Ok(Some(Installed { home: Arc::new(home), robbed }))
    }

    /// Whether a bed was registered in a home before then.
    fn is_older(&self, bed: &Bed, home: &HomeId, then: Timestamp) -> bool {
        let is_it = |row: &&Registration| {
            let what = &row.what;
            row.valid_to.is_none() && what.kind == Kind::Bed && what.home == *home && what.id == bed.id.as_str()
        };
        self.read(|known| known.registrations.iter().find(is_it).is_none_or(|row| row.valid_from < then))
    }

    async fn put(&self, home: Home, now: Timestamp) -> Result<(), RegistryError> {
        self.check(&home)?;
        let known = self.home(&home.id);
        let is_listed = |bed: &Bed| home.beds.iter().any(|listed| listed.id == bed.id);
        // Who is registered there may be back with the next file: a slip of the pen in an id must not cost a telephone number.
        let unlisted: Vec<Bed> = known.iter().flat_map(|known| &known.beds).cloned().collect();
        let unlisted: Vec<Bed> = unlisted.into_iter().filter(|bed| bed.person.is_some() && !is_listed(bed)).collect();
        let (ended, begun) = self.read(|known| {
            registrations::changes(&known.registrations, &home.id, false, &registrations::of(&home, &known.key))
        });
        self.save(&home, &unlisted, (&ended, &begun), now).await.map_err(query("register a home"))?;
        self.write(|known| {
            known.register(&ended, begun, now);
            for bed in &home.beds {
                known.unlisted.remove(&(home.id.clone(), bed.id.clone()));
            }
            let unlisted = unlisted.into_iter().map(|bed| ((home.id.clone(), bed.id.clone()), bed));
            known.unlisted.extend(unlisted);
            known.homes.insert(home.id.clone(), Arc::new(home));
        });
        Ok(())
    }

    /// Registers which devices a registered home has, each with the bed it belongs to.
    pub async fn put_devices(
        &self,
        home: &HomeId,
        devices: impl IntoIterator<Item = (DeviceId, Option<BedId>)>,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        let _one_at_a_time = self.changing.lock().await;
        let Some(known) = self.home(home) else { return Ok(()) };
        let registered = |(id, bed): (DeviceId, _)| Registered {
            kind: Kind::Device,
            id: id.to_string(),
            home: home.clone(),
            bed,
            area: known.area.clone(),
        };
        let devices = devices.into_iter().map(registered).collect();
        let (ended, begun) = self.read(|known| registrations::changes(&known.registrations, home, true, &devices));
        if ended.is_empty() && begun.is_empty() {
            return Ok(());
        }
        let saved = async {
            let mut all = self.database.pool.begin().await?;
            save_registrations(&mut all, (&ended, &begun), now).await?;
            all.commit().await
        };
        saved.await.map_err(query("register the devices of a home"))?;
        self.write(|known| known.register(&ended, begun, now));
        Ok(())
    }

    /// What was registered where, and from when to when, in the order in which it was told.
    #[must_use]
    pub fn registrations(&self) -> Vec<Registration> {
        self.read(|known| known.registrations.clone())
    }

    /// One home.
    #[must_use]
    pub fn home(&self, id: &HomeId) -> Option<Arc<Home>> {
        self.read(|known| known.homes.get(id).cloned())
    }

    /// All homes, by id.
    #[must_use]
    pub fn homes(&self) -> Vec<Arc<Home>> {
        self.read(|known| known.homes.values().cloned().collect())
    }

    /// The home that a gateway serves.
    #[must_use]
    pub fn served_by(&self, gateway: &GatewayId) -> Option<HomeId> {
        let serves = |home: &&Arc<Home>| home.gateway.as_ref() == Some(gateway);
        self.read(|known| known.homes.values().find(serves).map(|home| home.id.clone()))
    }

    /// What an area is called.
    #[must_use]
    pub fn area(&self, id: &Area) -> Option<Text> {
        self.read(|known| known.areas.get(id).cloned())
    }

    /// The home's time zone; [`TIME_ZONE`] for a home that is not registered.
    #[must_use]
    pub fn zone(&self, id: &HomeId) -> Tz {
        self.home(id).map_or(TIME_ZONE, |home| home.time_zone)
    }

    fn read<T>(&self, f: impl FnOnce(&Known) -> T) -> T {
        f(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, f: impl FnOnce(&mut Known) -> T) {
        f(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn check(&self, home: &Home) -> Result<(), RegistryError> {
        self.read(|known| {
            if !known.areas.contains_key(&home.area) {
                return Err(RegistryError::NoArea { home: home.id.clone(), area: home.area.clone() });
            }
            for other in known.homes.values().filter(|other| other.id != home.id) {
                if let Some(gateway) = home.gateway.clone().filter(|_| other.gateway == home.gateway) {
                    let home = other.id.clone();
                    return Err(RegistryError::GatewayTaken { gateway, home });
                }
                if let Some(bed) = home.beds.iter().find(|bed| other.beds.iter().any(|b| b.id == bed.id)) {
                    return Err(RegistryError::BedTaken { bed: bed.id.clone(), home: other.id.clone() });
                }
            }
            Ok(())
        })
    }

    async fn save(
        &self,
        home: &Home,
        unlisted: &[Bed],
        (ended, begun): (&BTreeSet<Registered>, &BTreeSet<Registered>),
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let mut all = self.database.pool.begin().await?;
        let id = home.id.as_str();
        sqlx::query(
            "INSERT INTO homes (id, area, name, time_zone, residents, lamp) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET area = ?2, name = ?3, time_zone = ?4, residents = ?5, lamp = ?6",
        )
        .bind(id)
        .bind(home.area.as_str())
        .bind(&home.name)
        .bind(home.time_zone.name())
        .bind(home.residents)
        .bind(home.lamp.as_ref().map(DeviceId::as_str))
        .execute(&mut *all)
        .await?;
        for clear in [
            "DELETE FROM persons WHERE bed IN (SELECT id FROM beds WHERE home = ?)",
            "DELETE FROM beds WHERE home = ?",
            "DELETE FROM gateways WHERE home = ?",
        ] {
            sqlx::query(clear).bind(id).execute(&mut *all).await?;
        }
        if let Some(gateway) = &home.gateway {
            sqlx::query("INSERT INTO gateways (id, home) VALUES (?, ?)")
                .bind(gateway.as_str())
                .bind(id)
                .execute(&mut *all)
                .await?;
        }
        for bed in unlisted {
            let Some(person) = &bed.person else { continue };
            sqlx::query("INSERT OR REPLACE INTO unlisted_beds (home, id, name, person, phone, address) VALUES (?, ?, ?, ?, ?, ?)")
                .bind(id)
                .bind(bed.id.as_str())
                .bind(&bed.name)
                .bind(&person.name)
                .bind(&person.phone)
                .bind(&person.address)
                .execute(&mut *all)
                .await?;
        }
        for bed in &home.beds {
            sqlx::query("DELETE FROM unlisted_beds WHERE home = ? AND id = ?")
                .bind(id)
                .bind(bed.id.as_str())
                .execute(&mut *all)
                .await?;
            sqlx::query("INSERT INTO beds (id, home, name) VALUES (?, ?, ?)")
                .bind(bed.id.as_str())
                .bind(id)
                .bind(&bed.name)
                .execute(&mut *all)
                .await?;
            let Some(person) = &bed.person else { continue };
            sqlx::query("INSERT INTO persons (bed, name, phone, address) VALUES (?, ?, ?, ?)")
                .bind(bed.id.as_str())
                .bind(&person.name)
                .bind(&person.phone)
                .bind(&person.address)
                .execute(&mut *all)
                .await?;
        }
        save_registrations(&mut all, (ended, begun), now).await?;
        all.commit().await
    }
}

async fn save_registrations(
    all: &mut sqlx::SqliteConnection,
    (ended, begun): (&BTreeSet<Registered>, &BTreeSet<Registered>),
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let end = "UPDATE registrations SET valid_to = ?6
        WHERE kind = ?1 AND id = ?2 AND home = ?3 AND bed IS ?4 AND area = ?5 AND valid_to IS NULL";
    let begin = "INSERT INTO registrations (kind, id, home, bed, area, valid_from) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    for (sql, rows) in [(end, ended), (begin, begun)] {
        for row in rows {
            sqlx::query(sql)
                .bind(row.kind.as_str())
                .bind(&row.id)
                .bind(row.home.as_str())
                .bind(row.bed.as_ref().map(BedId::as_str))
                .bind(row.area.as_str())
                .bind(now.millis())
                .execute(&mut *all)
                .await?;
        }
    }
    Ok(())
}

impl Known {
    fn register(&mut self, ended: &BTreeSet<Registered>, begun: BTreeSet<Registered>, now: Timestamp) {
        let open = self.registrations.iter_mut().filter(|row| row.valid_to.is_none() && ended.contains(&row.what));
        open.for_each(|row| row.valid_to = Some(now));
        let new = begun.into_iter().map(|what| Registration { what, valid_from: now, valid_to: None });
        self.registrations.extend(new);
    }
}

fn registration(row: &SqliteRow) -> Result<Registration, DatabaseError> {
    let kind = Kind::parse(&row.get::<String, _>(0)).ok_or_else(|| DatabaseError::Row {
        what: "a registration".to_owned(),
        source: "its kind is not known".into(),
    })?;
    let what = Registered {
        kind,
        id: row.get(1),
        home: read(row, 2)?,
        bed: row.get::<Option<String>, _>(3).map(|_| read(row, 3)).transpose()?,
        area: read(row, 4)?,
    };
    let valid_to = row.get::<Option<i64>, _>(6).map(Timestamp::from_millis);
    Ok(Registration { what, valid_from: Timestamp::from_millis(row.get(5)), valid_to })
}

impl Home {
    /// The bed a finding is about; for a finding about the whole home or a device in it, its only bed when there is one.
    #[must_use]
    pub fn bed(&self, subject: &Subject) -> Option<&Bed> {
        match (subject, self.beds.as_slice()) {
            (Subject::Bed(id), beds) => beds.iter().find(|bed| bed.id == *id),
            (Subject::Home(_) | Subject::Device { .. }, [only]) => Some(only),
            _ => None,
        }
    }
}

fn read<T: std::str::FromStr>(row: &SqliteRow, column: usize) -> Result<T, DatabaseError>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column);
    text.parse().map_err(|source: T::Err| DatabaseError::Row {
        what: format!("{text:?} of the registry"),
        source: source.into(),
    })
}
