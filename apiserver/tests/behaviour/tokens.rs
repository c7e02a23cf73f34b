//! Tokens of service accounts: whom they name, whom they are meant for, and when they stop being good.

use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, TokenRequest, TokenReview, TokenReviewStatus},
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
    config::Kubeconfig,
};
use serde_json::{Value, json};

use crate::world::{World, client, refusal, soon};

async fn token(world: &World, spec: Value) -> Result<String, kube::Error> {
    let request: TokenRequest = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
    let answered = world.api::<ServiceAccount>().create_token_request("robot", &PostParams::default(), &request).await?;
    Ok(answered.status.unwrap().token)
}

async fn review(world: &World, token: &str, audiences: &[&str]) -> TokenReviewStatus {
    let review = json!({"metadata": {}, "spec": {"token": token, "audiences": audiences}});
    let api = Api::<TokenReview>::all(world.client.clone());
    api.create(&PostParams::default(), &serde_json::from_value(review).unwrap()).await.unwrap().status.unwrap()
}

/// Waits until a token is good no more: a real server remembers for ten seconds that it was.
async fn ends(world: &World, token: &str) {
    let dead = async { while review(world, token, &["mesh"]).await.authenticated == Some(true) {} };
    soon("the token's end", dead).await;
}

async fn robot(world: &World) {
    let account = serde_json::from_value(json!({"metadata": {"name": "robot"}})).unwrap();
    world.api::<ServiceAccount>().create(&PostParams::default(), &account).await.unwrap();
}

#[tokio::test]
async fn a_token_is_good_for_its_audience_only() {
    let world = World::start().await;
    robot(&world).await;
    let token = token(&world, json!({"audiences": ["mesh"], "expirationSeconds": 600})).await.unwrap();
    let good = review(&world, &token, &["mesh", "other"]).await;
    assert_eq!((good.authenticated, good.audiences), (Some(true), Some(vec!["mesh".to_owned()])));
    let user = good.user.unwrap();
    assert_eq!(user.username, Some(format!("system:serviceaccount:{}:robot", world.namespace)));
    assert!(user.groups.unwrap().contains(&format!("system:serviceaccounts:{}", world.namespace)));
    for audiences in [&["other"][..], &[]] {
        assert_ne!(review(&world, &token, audiences).await.authenticated, Some(true), "{audiences:?}");
    }
    assert_ne!(review(&world, "nonsense", &["mesh"]).await.authenticated, Some(true));
}

#[tokio::test]
async fn a_token_dies_with_its_service_account() {
    let world = World::start().await;
    robot(&world).await;
    let token = token(&world, json!({"audiences": ["mesh"]})).await.unwrap();
    world.api::<ServiceAccount>().delete("robot", &DeleteParams::default()).await.unwrap();
    ends(&world, &token).await;
    robot(&world).await;
    assert_ne!(review(&world, &token, &["mesh"]).await.authenticated, Some(true), "a namesake is another account");
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_pod_names_it_and_dies_with_it() {
    let world = World::start().await;
    robot(&world).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]}});
    let pod = world.api::<Pod>().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let bound = |uid: &str| json!({"audiences": ["mesh"], "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}});
    let status = refusal(token(&world, bound("another")).await);
    assert_eq!(status.code, 409);
    let uid = pod.metadata.uid.unwrap();
    let token = token(&world, bound(&uid)).await.unwrap();
    let extra = review(&world, &token, &["mesh"]).await.user.unwrap().extra.unwrap();
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], [uid]);
    world.api::<Pod>().delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    ends(&world, &token).await;
}

#[tokio::test]
async fn a_caller_is_who_its_token_says_and_nobody_without_one() {
    let world = World::start().await;
    robot(&world).await;
    let token = token(&world, json!({})).await.unwrap();
    let calling = |token: &str| {
        let mut kubeconfig = serde_json::to_value(&world.kubeconfig).unwrap();
        kubeconfig["users"][0]["user"] = json!({"token": token});
        let kubeconfig = serde_json::from_value::<Kubeconfig>(kubeconfig).unwrap();
        async move {
            let api = Api::<SelfSubjectReview>::all(client(kubeconfig).await);
            api.create(&PostParams::default(), &SelfSubjectReview::default()).await
        }
    };
    let user = calling(&token).await.unwrap().status.unwrap().user_info.unwrap();
    assert_eq!(user.username, Some(format!("system:serviceaccount:{}:robot", world.namespace)));
    assert_eq!(refusal(calling("nonsense").await).code, 401);
}
