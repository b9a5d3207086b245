//! What detections and analysts may know of a home: no names.

use std::path::Path;

use anyhow::Context as _;
use carebed_console::database::Database;
use carebed_console::registry::{Home, Registry};
use carebed_queries::home::HomeFacts;

/// A registered home's facts.
#[must_use]
pub fn facts(home: &Home) -> HomeFacts {
    HomeFacts {
        home: home.id.clone(),
        area: home.area.clone(),
        time_zone: home.time_zone,
        residents: home.residents,
        beds: home.beds.iter().map(|bed| bed.id.clone()).collect(),
        params: Vec::new(),
    }
}

/// All homes of a centre's database; none when there is no database. Also while the centre runs.
pub async fn of_database(path: &Path) -> anyhow::Result<Vec<HomeFacts>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let database = Database::open_read(path).await?;
    let registry = Registry::load(&database).await.context("failed to read the registry")?;
    Ok(registry.homes().iter().map(|home| facts(home)).collect())
}
