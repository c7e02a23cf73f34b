//! This cluster's properties (About API, KEP-2149): its id, and the cluster set that it belongs to for as long as it is linked to anybody.
//!
//! A property that somebody else wrote is left as it is: another program may manage the cluster's identity.

use mesh_api::well_known::{CLUSTER_ID_PROPERTY, CLUSTER_SET, CLUSTER_SET_PROPERTY};

use crate::model::{Properties, Seen};

/// One write of a ClusterProperty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertyChange {
    /// Make one that is not there.
    Create(&'static str, String),
    /// Make one of ours say this.
    Update(&'static str, String),
    /// Delete one of ours, if it is still the one with this uid.
    Delete(&'static str, String),
}

/// What is to change; nothing before the properties have been listed.
pub(super) fn want(seen: &Seen) -> Vec<PropertyChange> {
    let Some(properties) = &seen.properties else { return Vec::new() };
    let member = match seen.member {
        Some(true) => one(properties, CLUSTER_SET_PROPERTY, Some(CLUSTER_SET)),
        Some(false) => one(properties, CLUSTER_SET_PROPERTY, None),
        None => None,
    };
    one(properties, CLUSTER_ID_PROPERTY, Some(seen.id.as_str())).into_iter().chain(member).collect()
}

fn one(properties: &Properties, name: &'static str, wanted: Option<&str>) -> Option<PropertyChange> {
    match (properties.get(name), wanted) {
        (None, Some(value)) => Some(PropertyChange::Create(name, value.to_owned())),
        (Some(found), Some(value)) if found.ours && found.value != value => Some(PropertyChange::Update(name, value.to_owned())),
        (Some(found), None) if found.ours => Some(PropertyChange::Delete(name, found.uid.clone())),
        (Some(_) | None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FoundProperty;
    use crate::plan::tests::world::west;

    fn check(found: &[(&str, &str, bool)], member: Option<bool>, expected: &[PropertyChange]) {
        let found = found.iter().map(|(name, value, ours)| {
            ((*name).to_owned(), FoundProperty { value: (*value).to_owned(), uid: format!("uid of {name}"), ours: *ours })
        });
        let seen = Seen { properties: Some(found.collect()), member, ..west(&[]) };
        assert_eq!(want(&seen), expected);
    }

    fn create(name: &'static str, value: &str) -> PropertyChange {
        PropertyChange::Create(name, value.to_owned())
    }

    #[test]
    fn a_cluster_says_its_id_and_while_it_is_a_member_its_cluster_set() {
        check(&[], Some(true), &[create(CLUSTER_ID_PROPERTY, "id-west"), create(CLUSTER_SET_PROPERTY, CLUSTER_SET)]);
        check(&[], Some(false), &[create(CLUSTER_ID_PROPERTY, "id-west")]);
        let both = [(CLUSTER_ID_PROPERTY, "id-west", true), (CLUSTER_SET_PROPERTY, CLUSTER_SET, true)];
        check(&both, Some(true), &[]);
        check(&both, Some(false), &[PropertyChange::Delete(CLUSTER_SET_PROPERTY, format!("uid of {CLUSTER_SET_PROPERTY}"))]);
        check(&both, None, &[]);
    }

    #[test]
    fn what_is_ours_and_wrong_is_put_right() {
        check(&[(CLUSTER_ID_PROPERTY, "?", true)], None, &[PropertyChange::Update(CLUSTER_ID_PROPERTY, "id-west".to_owned())]);
    }

    #[test]
    fn what_somebody_else_says_is_left_as_it_is() {
        let others = [(CLUSTER_ID_PROPERTY, "theirs", false), (CLUSTER_SET_PROPERTY, "theirs", false)];
        check(&others, Some(true), &[]);
        check(&others, Some(false), &[]);
    }

    #[test]
    fn nothing_is_said_before_the_properties_were_listed() {
        assert_eq!(want(&Seen { properties: None, member: Some(true), ..west(&[]) }), []);
    }
}
