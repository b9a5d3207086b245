//! Home files and the registry: what is where, as gateways say and detections are to know.

use carebed_console::intervals::Intervals;
use carebed_console::registry::{Bed, Home, Registry, RegistryError};
use carebed_contract::finding::Finding;
use carebed_contract::id::Area;
use carebed_contract::inventory::Inventory;
use carebed_contract::text::Text;
use carebed_contract::time::Timestamp;
use carebed_contract::topic::Topic;
use carebed_queries::home::HomeFacts;

use super::LiveTask;
use crate::facts::{Params, intervals_of};
use crate::notices;

impl LiveTask {
    /// A home file says what is where; names and people of a home that is known already stay as they are. What that changes for
    /// other homes, or contradicts them, is to be told.
    pub(super) async fn register(&mut self, topic: &Topic, inventory: Inventory) -> Option<Finding> {
        let now = self.clock.now();
        // A gateway's clock may be ahead.
        let since = inventory.since.min(now);
        self.live.set_devices(&inventory.home, inventory.devices.clone(), since);
        // A siren can be set, too: what records that it is a lamp is asked first.
        let can_be_set = inventory.devices.iter().filter(|device| device.actions.iter().any(|action| action == "set"));
        let lamp =
            can_be_set.min_by_key(|device| !device.quantities.iter().any(|recorded| recorded.as_str() == "lamp_on"));
        let home = Home {
            area: topic.area.clone(),
            gateway: Some(topic.gateway.clone()),
            name: inventory.home.to_string(),
            time_zone: inventory.time_zone.parse().unwrap_or(carebed_console::registry::TIME_ZONE),
            residents: inventory.residents,
            lamp: lamp.map(|device| device.id.clone()),
            beds: inventory.beds.into_iter().map(|b| Bed { name: b.id.to_string(), id: b.id, person: None }).collect(),
            id: inventory.home,
        };
        let (id, area) = (home.id.clone(), home.area.clone());
        let places: Vec<_> = inventory.devices.into_iter().map(|device| (device.id, device.bed)).collect();
        // Also when it cannot be registered: what detections know of it is right.
        self.know(&home);
        let installed = match put_area(&self.registry, &area).await {
            Ok(()) => self.registry.install(home, since, now).await,
            Err(error) => Err(error),
        };
        if let Err(error) = self.registry.put_devices(&id, places, now).await {
            tracing::error!(%error, gateway = %topic.gateway, "the home file's devices were not registered");
        }
        match installed {
            Ok(None) => None,
            Ok(Some(installed)) => {
                installed.robbed.iter().for_each(|robbed| self.know(robbed));
                let from: Vec<&str> = installed.robbed.iter().map(|robbed| robbed.id.as_str()).collect();
                (!from.is_empty()).then(|| {
                    tracing::warn!(home = %id, ?from, "a home took its gateway or beds from others");
                    notices::moved(id, area, now, "taken", &from.join(" "))
                })
            }
            Err(error) => {
                tracing::error!(%error, gateway = %topic.gateway, "the home file's home was not registered");
                Some(notices::moved(id, area, now, "refused", &error.to_string()))
            }
        }
    }

    /// Detections look at a home as it is now.
    pub(super) fn know(&mut self, home: &Home) {
        let alerts = self.times.of_home(&home.id);
        self.live.set_home(HomeFacts { alerts, ..facts(&self.params, &self.intervals, home) });
    }
}

/// What detections may know of a home, what people said about it included.
pub(super) fn facts(params: &Params, intervals: &Intervals, home: &Home) -> HomeFacts {
    HomeFacts { intervals: intervals_of(intervals, &home.id), ..params.facts(home) }
}

/// Registers a home, and its area when that is new: an area without a name is called by its code.
pub(crate) async fn put(registry: &Registry, home: Home, now: Timestamp) -> Result<(), RegistryError> {
    put_area(registry, &home.area).await?;
    registry.put_home(home, now).await
}

async fn put_area(registry: &Registry, area: &Area) -> Result<(), RegistryError> {
    match registry.area(area) {
        Some(_) => Ok(()),
        None => registry.put_area(area.clone(), Text::new(area.as_str(), area.as_str())).await,
    }
}
