//! The faults, and how a world suffers them.

use std::time::Duration;

use carebed_contract::clock::{Clock as _, SystemClock};
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::Lives;
use crate::proxy::{Proxy, Weather};
use crate::world::World;

/// After this time a gateway has seen what the system says of its clock.
const LOOKED: Duration = Duration::from_millis(1_500);

/// One fault; the number is the home it befalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    KillGateway(usize),
    KillCentre,
    /// Killed and started empty: it forgets what it acknowledged and what it retained.
    KillBroker,
    KillEverything,
    CutHomes,
    CutCentre,
    StallToBroker,
    StallToHomes,
    StallToCentre,
    StallFromCentre,
    /// The bytes of one direction are taken and never arrive, while the other direction works.
    LoseToBroker,
    LoseToHomes,
    LoseToCentre,
    LoseFromCentre,
    RefuseHomes,
    SlowNetwork,
    SilentDevice(usize),
    FillGateway(usize),
    FillCentre,
    /// A copy of the box with its spool runs beside it for a while.
    CloneGateway(usize),
    /// The box loses its time server, its clock steps away by hours, and steps back when the time server is there again.
    StepClock(usize),
    /// The box starts in 1970 without a network, and learns the time a little later, before the network is there.
    StartWithoutTime(usize),
}

impl Fault {
    /// Draws one. Deaths and full disks come more often than the rest: they are what loses data elsewhere.
    pub(super) fn draw(rng: &mut StdRng, homes: usize) -> Self {
        let home = rng.random_range(0..homes);
        let kinds = [
            (4, Self::KillGateway(home)),
            (3, Self::KillCentre),
            (2, Self::KillBroker),
            (1, Self::KillEverything),
            (1, Self::CutHomes),
            (1, Self::CutCentre),
            (1, Self::StallToBroker),
            (1, Self::StallToHomes),
            (1, Self::StallToCentre),
            (1, Self::StallFromCentre),
            (1, Self::LoseToBroker),
            (1, Self::LoseToHomes),
            (1, Self::LoseToCentre),
            (1, Self::LoseFromCentre),
            (1, Self::RefuseHomes),
            (1, Self::SlowNetwork),
            (1, Self::SilentDevice(home)),
            (2, Self::FillGateway(home)),
            (2, Self::FillCentre),
            (1, Self::CloneGateway(home)),
            (1, Self::StepClock(home)),
            (1, Self::StartWithoutTime(home)),
        ];
        let mut drawn = rng.random_range(0..kinds.iter().map(|(weight, _)| weight).sum::<u32>());
        for (weight, fault) in kinds {
            match drawn.checked_sub(weight) {
                Some(rest) => drawn = rest,
                None => return fault,
            }
        }
        Self::KillCentre
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::KillGateway(_) => "kill gateway",
            Self::KillCentre => "kill centre",
            Self::KillBroker => "kill broker",
            Self::KillEverything => "kill everything",
            Self::CutHomes => "cut homes",
            Self::CutCentre => "cut centre",
            Self::StallToBroker => "stall homes→broker",
            Self::StallToHomes => "stall broker→homes",
            Self::StallToCentre => "stall broker→centre",
            Self::StallFromCentre => "stall centre→broker",
            Self::LoseToBroker => "lose homes→broker",
            Self::LoseToHomes => "lose broker→homes",
            Self::LoseToCentre => "lose broker→centre",
            Self::LoseFromCentre => "lose centre→broker",
            Self::RefuseHomes => "refuse homes",
            Self::SlowNetwork => "slow network",
            Self::SilentDevice(_) => "silent device",
            Self::FillGateway(_) => "gateway's disk full",
            Self::FillCentre => "centre's disk full",
            Self::CloneGateway(_) => "cloned gateway",
            Self::StepClock(_) => "clock steps",
            Self::StartWithoutTime(_) => "starts without the time",
        }
    }

    /// Makes it happen, and ends it after `length`.
    pub(super) async fn suffer(self, world: &mut World, lives: &Lives, length: Duration) -> anyhow::Result<()> {
        let (homes, centre) = (&world.home_network, &world.centre_network);
        match self {
            Self::KillGateway(index) => {
                kill_gateway(world, lives, index).await;
                tokio::time::sleep(length / 4).await;
                world.start_gateway(index, None)?;
            }
            Self::KillCentre => {
                world.centre.kill().await;
                tokio::time::sleep(length / 4).await;
                world.centre.start(None)?;
            }
            Self::KillBroker => {
                world.broker.kill().await;
                tokio::time::sleep(length / 4).await;
                world.broker.restart().await?;
            }
            Self::KillEverything => {
                world.broker.kill().await;
                world.centre.kill().await;
                for index in 0..world.homes.len() {
                    kill_gateway(world, lives, index).await;
                }
                world.broker.restart().await?;
                world.centre.start(None)?;
                for index in 0..world.homes.len() {
                    world.start_gateway(index, None)?;
                }
            }
            Self::CutHomes => homes.cut(),
            Self::CutCentre => centre.cut(),
            Self::StallToBroker => spell(homes, length, |w| w.stall_up = true).await,
            Self::StallToHomes => spell(homes, length, |w| w.stall_down = true).await,
            Self::StallToCentre => spell(centre, length, |w| w.stall_down = true).await,
            Self::StallFromCentre => spell(centre, length, |w| w.stall_up = true).await,
            Self::LoseToBroker => spell(homes, length, |w| w.lose_up = true).await,
            Self::LoseToHomes => spell(homes, length, |w| w.lose_down = true).await,
            Self::LoseToCentre => spell(centre, length, |w| w.lose_down = true).await,
            Self::LoseFromCentre => spell(centre, length, |w| w.lose_up = true).await,
            Self::RefuseHomes => {
                homes.cut();
                spell(homes, length, |w| w.refuse = true).await;
            }
            Self::SlowNetwork => spell(homes, length, |w| w.delay = Duration::from_millis(80)).await,
            Self::SilentDevice(index) => {
                if let Some(home) = world.homes.get(index) {
                    home.devices.silent(true);
                    tokio::time::sleep(length).await;
                    home.devices.silent(false);
                }
            }
            Self::FillGateway(index) => {
                if let Some(home) = world.homes.get(index) {
                    lives.distrust(index);
                    home.gateway.fill_disk(Some(full_at(length))).await?;
                    tokio::time::sleep(length).await;
                    home.gateway.fill_disk(None).await?;
                }
            }
            Self::FillCentre => {
                world.centre.fill_disk(Some(full_at(length))).await?;
                tokio::time::sleep(length).await;
                world.centre.fill_disk(None).await?;
            }
            Self::CloneGateway(index) => {
                let mut copy = world.copy_gateway(index)?;
                tokio::time::sleep(2 * length).await;
                copy.kill().await;
            }
            Self::StepClock(index) => {
                if let Some(home) = world.homes.get(index) {
                    let hours = 1 + i64::from(length.subsec_micros() % 5);
                    let hours = if length.subsec_micros().is_multiple_of(2) { hours } else { -hours };
                    home.clock.set(0, false)?;
                    // Until it has seen that nobody keeps its clock right: it looks once a second.
                    tokio::time::sleep(LOOKED).await;
                    home.clock.set(hours * 3_600_000, false)?;
                    tokio::time::sleep(length).await;
                    home.clock.set(0, false)?;
                    home.clock.set(0, true)?;
                }
            }
            Self::StartWithoutTime(index) => {
                homes.cut();
                homes.set(|w| w.refuse = true);
                kill_gateway(world, lives, index).await;
                if let Some(home) = world.homes.get(index) {
                    home.clock.set(-SystemClock::new().now().millis(), false)?;
                }
                world.start_gateway(index, None)?;
                tokio::time::sleep(length).await;
                if let Some(home) = world.homes.get(index) {
                    home.clock.set(0, false)?;
                    home.clock.set(0, true)?;
                }
                world.home_network.clear();
            }
        }
        Ok(())
    }
}

async fn kill_gateway(world: &mut World, lives: &Lives, index: usize) {
    lives.end(index);
    if let Some(home) = world.homes.get_mut(index) {
        home.gateway.kill().await;
    }
}

async fn spell(network: &Proxy, length: Duration, change: impl FnOnce(&mut Weather)) {
    network.set(change);
    tokio::time::sleep(length).await;
    network.clear();
}

/// Where a write is refused: anywhere in the first pages of a file, so that some are cut short and some do not begin.
fn full_at(length: Duration) -> u64 {
    u64::from(length.subsec_micros()) % 6_000
}
