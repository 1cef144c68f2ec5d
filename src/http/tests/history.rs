//! How many instances a pool had.

use super::*;

fn with(name: &str, spot: i32, on_demand: i32) -> Arc<SpotPool> {
    let mut held = pool(name);
    let (spot, on_demand) = (Some(group(spot, spot)), Some(group(on_demand, on_demand)));
    held.status = Some(SpotPoolStatus { spot, on_demand, ..empty() });
    Arc::new(held)
}

async fn told(history: Arc<History>, pools: Vec<SpotPool>, name: &str) -> (u16, Value) {
    let state = ApiState { history, ..Fixture { pools, ..Fixture::empty() }.state().await };
    let app = init_service(App::new().configure(|cfg| routes(cfg, state, Door::Local))).await;
    let path = format!("/api/v1/pools/{name}/history");
    let response = call_service(&app, TestRequest::get().uri(&path).to_request()).await;
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&read_body(response).await).unwrap())
}

#[actix_web::test]
async fn each_change_of_the_counts_is_told_once() {
    let history = Arc::new(History::default());
    history.take(&[Arc::new(pool("web"))], noon(-90));
    history.take(&[with("web", 3, 0)], noon(-60));
    history.take(&[with("web", 3, 0)], noon(-50));
    history.take(&[with("web", 2, 1)], noon(-40));
    let (status, answer) = told(history.clone(), vec![pool("web")], "web").await;
    let counts = |count: i32| json!({ "desired": count, "inService": count });
    assert_eq!(status, 200);
    assert_eq!(
        answer,
        json!({ "pool": "web", "items": [
            { "at": noon(-90) },
            { "at": noon(-60), "spot": counts(3), "onDemand": counts(0) },
            { "at": noon(-40), "spot": counts(2), "onDemand": counts(1) },
        ] })
    );
    assert_eq!(
        told(history.clone(), vec![pool("batch")], "batch").await.1,
        json!({ "pool": "batch", "items": [] })
    );
    assert_eq!(told(history, vec![], "web").await.0, 404, "a pool that is gone");
}

#[actix_web::test]
async fn what_is_remembered_is_bounded() {
    let history = Arc::new(History::default());
    let day = 24 * 3600;
    history.take(&[with("web", 1, 0)], noon(-3 * day));
    history.take(&[with("web", 2, 0)], noon(-2 * day));
    history.take(&[with("web", 2, 0)], noon(-60));
    let spot = |answer: &Value| -> Vec<i64> {
        let items = answer["items"].as_array().unwrap();
        items.iter().map(|held| held["spot"]["inService"].as_i64().unwrap()).collect()
    };
    let (_, answer) = told(history.clone(), vec![pool("web")], "web").await;
    assert_eq!(spot(&answer), [2], "how the last day began is kept, however long ago it became so");
    for count in 0..2000 {
        history.take(&[with("web", count, 0)], noon(i64::from(count)));
    }
    let (_, answer) = told(history.clone(), vec![pool("web")], "web").await;
    assert_eq!(spot(&answer), (1500..2000).collect::<Vec<i64>>(), "the newest");
    history.take(&[], noon(3000));
    assert_eq!(
        told(history, vec![pool("web")], "web").await.1["items"],
        json!([]),
        "a pool that is gone is forgotten"
    );
}

#[actix_web::test]
async fn it_is_kept_while_the_objects_are_watched() {
    tokio::time::pause();
    let (pools, mut writer) = reflector::store();
    let changed = watch::Sender::new(0);
    let state = ApiState { pools, changes: changed.subscribe(), ..Fixture::empty().state().await };
    let kept = actix_web::rt::spawn(keep_history(state.clone()));
    for count in [3, 2] {
        writer.apply_watcher_event(&Event::Apply(SpotPool::clone(&with("web", count, 0))));
        changed.send_modify(|version| *version += 1);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    drop(changed);
    kept.await.unwrap();
    let (_, answer) = told(state.history, vec![pool("web")], "web").await;
    assert_eq!(answer["items"].as_array().unwrap().len(), 2, "{answer}");
}
