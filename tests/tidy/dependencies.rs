//! SEC-79: Cargo.lock against the version floors that deny.toml names, tests included.

use crate::source;

/// A package and the first version that is allowed.
type Floor = (String, Version);
type Version = [u64; 3];

/// Packages the floors must name, whatever else deny.toml says.
const FLOORS_OF: [&str; 6] = [
    "bytes",
    "h2",
    "rustls",
    "rustls-webpki",
    "tokio",
    "tungstenite",
];

/// The bans of the form `name@<1.2.3`.
fn floors(policy: &str) -> Vec<Floor> {
    let policy: toml::Table = policy.parse().expect("deny.toml is TOML");
    let bans = policy
        .get("bans")
        .and_then(|bans| bans.get("deny"))
        .and_then(toml::Value::as_array);
    let bans = bans.expect("deny.toml has a list bans.deny").iter();
    let specs = bans.filter_map(|ban| ban.get("crate").and_then(toml::Value::as_str));
    specs
        .filter_map(|spec| spec.split_once("@<"))
        .map(|(name, least)| (name.to_owned(), version(least)))
        .collect()
}

/// The three numbers; what follows a `-` or `+` does not count.
fn version(text: &str) -> Version {
    let numbers = text.split(['-', '+']).next().unwrap_or(text).split('.');
    let mut numbers = numbers.map(|part| part.parse().expect("a version is numbers and dots"));
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}

/// Name and version of every package in the lock file.
fn locked(lock: &str) -> Vec<Floor> {
    let lock: toml::Table = lock.parse().expect("Cargo.lock is TOML");
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let text = |package: &toml::Value, key: &str| package.get(key)?.as_str().map(str::to_owned);
    let packages = packages.expect("Cargo.lock lists packages").iter();
    packages
        .filter_map(|package| Some((text(package, "name")?, version(&text(package, "version")?))))
        .collect()
}

fn below_floors(policy: &str, lock: &str) -> Vec<String> {
    let floors = floors(policy);
    let dotted = |[a, b, c]: Version| format!("{a}.{b}.{c}");
    locked(lock)
        .into_iter()
        .filter_map(|(name, found)| {
            let (_, least) = floors.iter().find(|(floor, _)| *floor == name)?;
            (found < *least).then(|| {
                let (found, least) = (dotted(found), dotted(*least));
                format!("Cargo.lock: {name} {found} is older than {least}: cargo update -p {name}")
            })
        })
        .collect()
}

#[test]
fn sec_79_locked_versions_are_above_the_floors() {
    let (policy, lock) = (source::read("deny.toml"), source::read("Cargo.lock"));
    let mut named: Vec<String> = floors(&policy).into_iter().map(|(name, _)| name).collect();
    named.sort();
    named.retain(|name| FLOORS_OF.contains(&name.as_str()));
    assert_eq!(named, FLOORS_OF, "deny.toml names every floor of SEC-79");
    source::expect_none("Known holes stay closed.", &below_floors(&policy, &lock));
}

#[test]
fn a_version_below_its_floor_is_found() {
    let policy = "[bans]\ndeny = [{ crate = \"ring\" }, { crate = \"h2@<0.4.16\" }]\n";
    let lock = |version: &str| format!("[[package]]\nname = \"h2\"\nversion = \"{version}\"\n");
    for fine in ["0.4.16", "0.4.16+x", "0.5.0", "1.0.0"] {
        assert_eq!(below_floors(policy, &lock(fine)).len(), 0, "{fine}");
    }
    for old in ["0.4.15", "0.3.99", "0.4.2-rc.1"] {
        assert_eq!(below_floors(policy, &lock(old)).len(), 1, "{old}");
    }
}
