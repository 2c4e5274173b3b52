use super::*;

#[test]
fn a_finding_that_is_fine_has_no_advice_key() {
    let json = serde_json::to_string(&Finding::ok("clock", "synchronised")).unwrap();
    assert_eq!(json, r#"{"level":"OK","subject":"clock","message":"synchronised"}"#);
}

#[test]
fn traffic_is_flat_in_services_and_servers() {
    let stats = RealServerStats { label: "R".into(), traffic: Traffic::default() };
    let json = serde_json::to_string(&stats).unwrap();
    assert!(json.starts_with(r#"{"label":"R","packets_in":0,"#), "{json}");
    assert_eq!(serde_json::from_str::<RealServerStats>(&json).unwrap(), stats);
}
