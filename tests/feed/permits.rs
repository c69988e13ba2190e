//! Whether a filter lies inside a set of filters, against counting out every topic.

use proptest::prelude::*;
use tollgate::identity::{Action, Permit};
use tollgate::mqtt::topic::{Filter, FilterBuf, Topic};

/// Names in filters; topics have one more, which stands for all others.
const NAMES: [&str; 3] = ["a", "", "$x"];
const OTHER: &str = "z";

/// Levels of a filter at most; topics have two more.
const LEVELS_MAX: usize = 3;

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![
        4 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned),
        3 => Just("+".to_owned()),
    ];
    let levels = prop::collection::vec(level, 1..=LEVELS_MAX);
    (levels, 0..3_u8).prop_filter_map("a filter", |(mut levels, kind)| {
        match kind {
            0 => {
                levels.pop();
                levels.push("#".to_owned());
            }
            1 if levels.len() < LEVELS_MAX => levels.push("#".to_owned()),
            _ => {}
        }
        let text = levels.join("/");
        Filter::new(&text).is_ok().then_some(text)
    })
}

fn topics() -> Vec<String> {
    let names: Vec<&str> = NAMES.iter().copied().chain([OTHER]).collect();
    let mut all: Vec<Vec<&str>> = vec![Vec::new()];
    let mut topics = Vec::new();
    for _ in 0..LEVELS_MAX + 2 {
        let mut longer = Vec::new();
        for levels in &all {
            for name in &names {
                let mut levels = levels.clone();
                levels.push(name);
                topics.push(levels.join("/"));
                longer.push(levels);
            }
        }
        all = longer;
    }
    topics.retain(|topic| Topic::new(topic).is_ok());
    topics
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn sec_32_a_filter_is_allowed_exactly_if_every_topic_of_it_is(
        allowed in prop::collection::vec(filter(), 0..5),
        wanted in filter(),
    ) {
        let compiled = allowed.iter().map(|text| FilterBuf::from(Filter::new(text).unwrap()));
        let permit = Permit::filters(Vec::new(), compiled.collect());
        let wanted = Filter::new(&wanted).unwrap();
        let outside = topics().into_iter().find(|topic| {
            let topic = Topic::new(topic).unwrap();
            wanted.matches(topic) && !permit.allows(Action::Receive, topic)
        });
        prop_assert_eq!(permit.allows_filter(&wanted), outside.is_none(), "{:?}", outside);
        let shared = format!("$share/g/{}", wanted.as_str());
        let shared = Filter::new(&shared).unwrap();
        prop_assert_eq!(permit.allows_filter(&shared), outside.is_none());
    }
}

#[test]
fn sec_32_several_filters_together_cover_what_none_does_alone() {
    let permit = |filters: &[&str]| {
        let compiled = filters
            .iter()
            .map(|text| FilterBuf::from(Filter::new(text).unwrap()));
        Permit::filters(Vec::new(), compiled.collect())
    };
    let allows =
        |filters: &[&str], wanted| permit(filters).allows_filter(&Filter::new(wanted).unwrap());
    assert!(allows(&["a", "a/+", "a/+/+/#"], "a/#"));
    assert!(!allows(&["a", "a/+/+/#"], "a/#"));
    assert!(allows(&["+", "+/#"], "#"));
    assert!(!allows(&["#"], "$x"));
    assert!(!allows(&[], "a"));
    assert!(!permit(&["a"]).allows(Action::Publish, Topic::new("a").unwrap()));
}
