//! Which units hang on a target, and how they are: asked of the service manager when a person asks
//! for it. Must never change anything.

use std::collections::BTreeMap;

use interfaces::names::UnitName;
use interfaces::orchestrator::HangingUnit;
use zbus::proxy::CacheProperties;

use super::Inquiry;
use super::call::{MANAGER, ManagerProxy, UNIT, path_of};

/// The most units that are named.
const MAX_UNITS: usize = 256;

/// What hangs on a unit: what it has started, what it keeps up, and what is stopped with it.
const DEPENDENCIES: [&str; 4] = ["Wants", "Requires", "Upholds", "ConsistsOf"];

/// Answers an inquiry, or leaves it without an answer.
pub(super) async fn answer(manager: ManagerProxy<'static>, inquiry: Inquiry) {
    let Inquiry { targets, mut to } = inquiry;
    let found = tokio::select! {
        found = on(&manager, &targets) => found,
        // The caller gave up, or is gone.
        () = to.closed() => return,
    };
    if let Ok(units) = found {
        let _ = to.send(units);
    }
}

/// The units that hang on `targets`, in the order of these.
async fn on(
    manager: &ManagerProxy<'static>,
    targets: &[UnitName],
) -> zbus::Result<Vec<HangingUnit>> {
    let mut hanging: Vec<(String, &UnitName)> = Vec::new();
    for target in targets {
        for name in dependencies(manager, target).await? {
            let known = hanging
                .iter()
                .any(|(known, on)| *known == name && *on == target);
            if !known && hanging.len() < MAX_UNITS {
                hanging.push((name, target));
            }
        }
    }
    let names: Vec<&str> = hanging.iter().map(|(name, _)| name.as_str()).collect();
    let listed = manager.list_units_by_names(&names).await?;
    let states: BTreeMap<String, String> = listed.into_iter().map(|u| (u.0, u.3)).collect();
    let shown = hanging.into_iter().map(|(name, target)| HangingUnit {
        active_state: states
            .get(&name)
            .cloned()
            .unwrap_or_else(|| "inactive".to_owned()),
        target: target.to_string(),
        name,
    });
    Ok(shown.collect())
}

async fn dependencies(
    manager: &ManagerProxy<'static>,
    target: &UnitName,
) -> zbus::Result<Vec<String>> {
    let properties = zbus::fdo::PropertiesProxy::builder(manager.inner().connection())
        .destination(MANAGER)
        .path(path_of(target))
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let mut names = Vec::new();
    for dependency in DEPENDENCIES {
        let interface = zbus::names::InterfaceName::from_static_str(UNIT)?;
        let value = properties.get(interface, dependency).await?;
        names.extend(Vec::<String>::try_from(value)?);
    }
    Ok(names)
}
