//! The units attached to a target, and their states. The service manager is queried for them when
//! a user requests them. Must never change anything.

use std::collections::BTreeMap;

use interfaces::names::UnitName;
use interfaces::orchestrator::AttachedUnit;
use zbus::proxy::CacheProperties;

use super::UnitQuery;
use super::call::{MANAGER, ManagerProxy, UNIT, path_of};

/// The most units that are listed.
const MAX_UNITS: usize = 256;

/// The dependencies of units attached to a target: it starts them, keeps them up, or they are
/// stopped with it.
const DEPENDENCIES: [&str; 4] = ["Wants", "Requires", "Upholds", "ConsistsOf"];

/// Replies to an unit_query, or drops it without a reply.
pub(super) async fn answer(manager: ManagerProxy<'static>, unit_query: UnitQuery) {
    let UnitQuery { targets, mut to } = unit_query;
    let found = tokio::select! {
        found = on(&manager, &targets) => found,
        // The caller gave up or disconnected.
        () = to.closed() => return,
    };
    if let Ok(units) = found {
        let _ = to.send(units);
    }
}

/// Returns the units attached to `targets`, in the order of the targets.
async fn on(
    manager: &ManagerProxy<'static>,
    targets: &[UnitName],
) -> zbus::Result<Vec<AttachedUnit>> {
    let mut attached: Vec<(String, &UnitName)> = Vec::new();
    for target in targets {
        for name in dependencies(manager, target).await? {
            let known = attached
                .iter()
                .any(|(known, on)| *known == name && *on == target);
            if !known && attached.len() < MAX_UNITS {
                attached.push((name, target));
            }
        }
    }
    let names: Vec<&str> = attached.iter().map(|(name, _)| name.as_str()).collect();
    let listed = manager.list_units_by_names(&names).await?;
    let states: BTreeMap<String, String> = listed.into_iter().map(|u| (u.0, u.3)).collect();
    let shown = attached.into_iter().map(|(name, target)| AttachedUnit {
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
