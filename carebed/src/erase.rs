//! `carebed erase`: forgets a person, by the bed or the home and the time, and proves it with a scan.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use carebed_contract::clock::{Clock as _, SystemClock};
use carebed_contract::id::{BedId, HomeId};
use carebed_contract::time::Timestamp;
use carebed_device_profiles::document::nearest;
use carebed_pipeline::store::Erasure;

use crate::cli::{Format, complain, say};
use crate::exit::Exit;
use crate::{maintain, sql};

/// Whom to forget.
#[derive(Debug, Clone, clap::Args)]
pub struct EraseArguments {
    /// The centre's data folder.
    #[arg(long, env = "CAREBED_DATA")]
    pub data: PathBuf,
    /// The home.
    #[arg(long)]
    pub home: HomeId,
    /// Only this bed of it; without it the whole home, with its doors and rooms.
    #[arg(long)]
    pub bed: Option<BedId>,
    /// Only what was observed from then on, as in 2026-03-01T00:00:00+08:00.
    #[arg(long, value_parser = time)]
    pub from: Option<Timestamp>,
    /// Only what was observed before: later rows of the bed may be somebody else's. When absent, what was observed before now,
    /// and what the centre has received by now though a clock that runs ahead dated it later.
    #[arg(long, value_parser = time)]
    pub until: Option<Timestamp>,
    /// Names the erasure; asking again with the same name goes on with it.
    #[arg(long)]
    pub id: Option<String>,
    /// Does it. It cannot be undone.
    #[arg(long)]
    pub yes: bool,
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| format!("{text:?} is not a time; write it as 2026-03-01T00:00:00+08:00"))
}

/// How many observations there are of whom, at any time. An error when nobody knows the home or the bed: a slip of the
/// pen must not look like an erasure.
async fn rows_of(data: &Path, home: &HomeId, bed: Option<&BedId>) -> anyhow::Result<String> {
    let ask = async |statement: String| {
        let answer = sql::answer(data, &statement, Format::Csv).await?;
        anyhow::Ok(answer.lines().skip(1).map(ToOwned::to_owned).collect::<Vec<_>>())
    };
    let bed_is = bed.map(|bed| format!(" AND bed_id = '{bed}'")).unwrap_or_default();
    let of_whom = format!("home_id = '{home}'{bed_is}");
    let counted = ask(format!("SELECT count(*) FROM observations WHERE {of_whom}")).await?.pop().unwrap_or_default();
    if counted != "0" {
        return Ok(counted);
    }
    // It was asked for before, and is gone on with.
    if sql::open(data).await?.erasures().iter().any(|known| known.home == *home && known.bed.as_ref() == bed) {
        return Ok(counted);
    }
    // Its rows may be in a spool yet.
    let known = match bed {
        None => ask("SELECT home_id FROM homes UNION SELECT home_id FROM observations".to_owned()).await?,
        Some(_) => {
            let of = |table: &str| format!("SELECT bed_id FROM {table} WHERE home_id = '{home}'");
            ask(format!("{} UNION {}", of("beds"), of("observations"))).await?
        }
    };
    let name = bed.map_or(home.as_str(), BedId::as_str);
    if known.iter().any(|known| known == name) {
        return Ok(counted);
    }
    let hint = match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "SELECT home_id, bed_id FROM beds lists those that are known".to_owned(),
    };
    match bed {
        None => bail!("nobody knows home {home}\nhint: {hint}"),
        Some(bed) => bail!("nobody knows bed {bed} of home {home}\nhint: {hint}"),
    }
}

/// `carebed erase`. Prints the report as one JSON object.
pub async fn run(arguments: EraseArguments) -> anyhow::Result<Exit> {
    let now = SystemClock::new().now();
    let EraseArguments { data, home, bed, from, until, id, yes } = arguments;
    let whom = bed.as_ref().map_or_else(|| format!("home {home}"), |bed| format!("bed {bed} of home {home}"));
    let received_before = until.is_none().then_some(now);
    let until = until.unwrap_or(now);
    if let Some(from) = from.filter(|from| *from >= until) {
        bail!("nothing lies between --from {from} and --until {until}\nhint: name a --from that is before --until");
    }
    if until > now {
        bail!(
            "--until {until} is to come: what is observed by then would be erased as it comes, calls too\nhint: erase up to now"
        );
    }
    let n_rows = rows_of(&data, &home, bed.as_ref()).await?;
    if !yes {
        bail!(
            "this would erase the observations of {whom} before {until}, for good; the lake holds {n_rows} of {whom} in all\n\
             hint: repeat it with --yes"
        );
    }
    let id = id.unwrap_or_else(|| format!("{:016x}", rand::random::<u64>()));
    let report = maintain::erase(&data, Erasure { id, home, bed, from, until, received_before, asked_at: now }).await;
    let report = report.with_context(|| format!("failed to erase {whom}; ask again, it goes on where it was"))?;
    say(&serde_json::to_string_pretty(&report)?);
    if report.left > 0 {
        complain(&format!(
            "warning: {} rows are still in files that a reader holds; they are not shown any more, and are deleted when it \
             ends\nhint: run carebed erase again with --id {}",
            report.left, report.id
        ));
        return Ok(Exit::Refused);
    }
    if !report.unreadable.is_empty() {
        complain(&format!(
            "warning: nobody could look into {}: other programs' files or damaged ones\nhint: move them out of the lake, or restore \
             them from a backup, and run carebed erase again with --id {}",
            report.unreadable.join(", "),
            report.id
        ));
        return Ok(Exit::Refused);
    }
    if report.memory_forgotten == Some(false) {
        complain("warning: the centre was ending and may remember some of it until then\nhint: start it again");
    }
    complain(
        "the lake holds no such row any more, nor will it take one that is still in a spool; alerts and the registry keep \
         their own records, and so do backups",
    );
    Ok(Exit::Done)
}
