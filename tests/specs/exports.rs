//! What is exported is callable from the other cluster; what no longer is ends within 2 s, connections kept alive from before included.

use std::time::Duration;

use mesh_tests::client::Connection;
use mesh_tests::eventually;

#[tokio::test]
async fn an_export_makes_a_foreign_program_callable_and_its_deletion_ends_that() {
    let (_alone, world) = crate::world(2).await;
    let client = world.client("west");
    world.apply("east", MANIFEST).unwrap();
    let (_, took) = eventually("the new service answers west", async || {
        let answer = client.get(URL).await?;
        anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
        Ok(())
    })
    .await;
    let mut kept = Connection::open(client.outbound).await.unwrap();
    assert_eq!(kept.get(URL).await.unwrap().status, 200);
    world.kubectl("east", &["delete", "serviceexports.multicluster.x-k8s.io", "files", "-n", "shop"]).unwrap();
    let (_, ended) = eventually("nobody in west reaches it", async || {
        let fresh = client.get(URL).await.map(|answer| answer.status.as_u16()).unwrap_or(0);
        let old = match kept.get(URL).await {
            Ok(answer) => answer.status.as_u16(),
            Err(_) => {
                kept = Connection::open(client.outbound).await?;
                0
            }
        };
        anyhow::ensure!(fresh != 200 && old != 200, "{fresh} {old}");
        Ok(())
    })
    .await;
    println!("callable after {took:?}, unreachable after {ended:?}");
    assert!(ended < Duration::from_secs(3), "{ended:?}");
}

const URL: &str = "http://files.shop.svc.clusterset.local/";
const MANIFEST: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: files, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: files}}
  template:
    metadata: {labels: {app: files}}
    spec:
      containers:
      - name: files
        image: python
        command: [python3, -m, http.server, '8000', --bind, $(POD_IP), --directory, /proc/sys/kernel/random]
        env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
        ports: [{containerPort: 8000}]
---
apiVersion: v1
kind: Service
metadata: {name: files, namespace: shop}
spec:
  selector: {app: files}
  ports: [{name: http, port: 80, targetPort: 8000}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: files, namespace: shop}
";
