//! Ids of users as the world writes them: `8:acs:<resource>_<user>`, both UUIDs in lower case with
//! hyphens. The first half is fixed for each installation, the second is the registry's own id.

use uuid::Uuid;

/// What every id begins with. User names that do take the way of users at CONNECT.
pub const USER_ID_PREFIX: &str = "8:acs:";

/// The id of a user of `resource`.
#[must_use]
pub(super) fn text(resource: Uuid, user: Uuid) -> String {
    format!("{USER_ID_PREFIX}{resource}_{user}")
}

/// The user that an id names; `None` if it is malformed or of another resource.
#[must_use]
pub(super) fn parse(resource: Uuid, id: &str) -> Option<Uuid> {
    let (of, user) = id.strip_prefix(USER_ID_PREFIX)?.split_once('_')?;
    // One way of writing for each: `Uuid` reads others too.
    let read = |text: &str| {
        let uuid = Uuid::try_parse(text).ok()?;
        (uuid.hyphenated().to_string() == text).then_some(uuid)
    };
    (read(of)? == resource).then(|| read(user)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_07_an_id_has_one_way_of_writing() {
        let (resource, user) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let id = text(resource, user);
        assert_eq!(parse(resource, &id), Some(user));
        assert_eq!(id.len(), 79);
        for bad in [
            "",
            "8:acs:",
            "8:acs:_",
            &id[..78],
            &id.to_uppercase(),
            &id.replace('-', ""),
            &format!("{id} "),
            &id.replace('_', "-"),
            &format!("8:acs:{}_{user}", Uuid::from_u128(9)),
        ] {
            assert_eq!(parse(resource, bad), None, "{bad}");
        }
    }
}
