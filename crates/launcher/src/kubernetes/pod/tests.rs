//! Pods from options, without a cluster.

use super::fixture::options;
use super::*;

fn attempt() -> AttemptId {
    AttemptId { job: "01kb3x7h8m9n0p1q2r3s4t5v6w".parse().unwrap(), step: 2, number: 3 }
}

#[test]
fn pod_names_its_attempt() {
    let pod = pod(&options(json!({})), &Target::own(attempt()), &LaunchRequirements::default()).unwrap();
    let name = pod.metadata.name.clone().unwrap();
    assert!(name.len() <= 63 && name.ends_with("-2-3"), "{name}");
    assert_eq!(target_of(&pod), Some(Target::own(attempt())));
    assert!(serde_json::to_string(&pod).unwrap().len() < 10_000);
}

#[test]
fn template_cannot_replace_required_fields() {
    let template = json!({
        "metadata": { "labels": { "team": "a", MANAGED_BY: "me" }, "name": "other" },
        "spec": {
            "nodeSelector": { "disk": "ssd" },
            "containers": [{ "name": CONTAINER, "image": "own:2", "resources": { "limits": { "memory": "64Mi" } },
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }],
            "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "sqlflow-tmp", "emptyDir": { "sizeLimit": "1Gi" } }],
        },
    });
    let pod_resources =
        PodResources { memory: Some("4Gi".into()), cpu: Some("2".into()), ..PodResources::default() };
    let pod = pod(
        &options(template),
        &Target::own(attempt()),
        &LaunchRequirements { pod_resources, publishes: true, ..LaunchRequirements::default() },
    )
    .unwrap();
    assert_eq!(target_of(&pod), Some(Target::own(attempt())));
    let spec = pod.spec.unwrap();
    assert_eq!(spec.containers.len(), 1);
    assert_eq!(spec.containers[0].image.as_deref(), Some("own:2"));
    let resources = serde_json::to_value(&spec.containers[0].resources).unwrap();
    let expected = json!({
        "limits": { "memory": "4Gi", "ephemeral-storage": DISK_LIMIT },
        "requests": { "memory": "4Gi", "cpu": "2", "ephemeral-storage": DISK_REQUEST },
    });
    assert_eq!(resources, expected);
    assert_eq!(spec.containers[0].volume_mounts.as_ref().unwrap().len(), 4);
    let volumes = spec.volumes.unwrap();
    assert_eq!(volumes.len(), 4);
    let size = |name: &str| {
        let volume = volumes.iter().find(|it| it.name == name)?;
        volume.empty_dir.as_ref()?.size_limit.as_ref().map(|it| it.0.clone())
    };
    assert_eq!(
        (size("sqlflow-work").as_deref(), size("sqlflow-tmp").as_deref()),
        (Some(WORK_SIZE), Some("1Gi"))
    );
    assert_eq!(spec.node_selector.unwrap()["disk"], "ssd");
}

#[test]
fn only_steps_that_publish_have_a_claim() {
    let options = KubernetesOptions { workspace_claim: Some(json!({})), ..options(json!({})) };
    for publishes in [true, false] {
        let requirements = LaunchRequirements { publishes, ..LaunchRequirements::default() };
        let spec = pod(&options, &Target::own(attempt()), &requirements).unwrap().spec.unwrap();
        let work = spec.volumes.unwrap().into_iter().find(|it| it.name == "sqlflow-work").unwrap();
        assert_eq!(work.persistent_volume_claim.is_some(), publishes);
        assert_eq!(work.empty_dir.is_some(), !publishes);
        let args = spec.containers[0].args.clone().unwrap();
        assert_eq!(args.iter().any(|it| it == "--keep-output"), publishes);
    }
}

#[test]
fn other_finalizers_stay() {
    let all = ["a/b".to_owned(), FINALIZER.to_owned()];
    assert_eq!(without_ours(&all), Some(vec![&all[0]]));
    assert_eq!(without_ours(&all[..1]), None);
}

#[test]
fn plain_sql_runs_on_the_image_of_the_agent() {
    let template = json!({ "spec": { "containers": [{ "name": CONTAINER, "image": "own:2" }] } });
    let sql = |agent: Option<&str>, sql: Option<&str>| {
        let options = KubernetesOptions {
            agent_image: agent.map(str::to_owned),
            sql_image: sql.map(str::to_owned),
            ..options(template.clone())
        };
        let requirements = LaunchRequirements { plain_sql: true, ..LaunchRequirements::default() };
        pod(&options, &Target::own(attempt()), &requirements).unwrap().spec.unwrap()
    };
    for (agent, given, expected) in [
        (None, None, "submitter:1"),
        (Some("agent:1"), None, "agent:1"),
        (Some("agent:1"), Some("sql:1"), "sql:1"),
    ] {
        let spec = sql(agent, given);
        assert_eq!(spec.containers[0].image.as_deref(), Some(expected));
        assert_eq!(spec.containers[0].command.as_ref().unwrap()[0], "/sqlflow-agent");
        assert!(spec.init_containers.is_none(), "the image has the agent");
    }
}

#[test]
fn image_without_an_agent_gets_one() {
    let options = KubernetesOptions { agent_image: Some("agent:1".into()), ..options(json!({})) };
    let spec = pod(&options, &Target::own(attempt()), &LaunchRequirements::default()).unwrap().spec.unwrap();
    let init = spec.init_containers.unwrap().remove(0);
    assert_eq!(init.image.as_deref(), Some("agent:1"));
    assert_eq!(serde_json::to_value(&init.resources).unwrap(), disk(AGENT_SIZE));
    assert_eq!(spec.containers[0].command.as_ref().unwrap()[0], "/sqlflow-agent-bin/sqlflow-agent");
}

#[test]
fn certificate_of_the_server_is_in_the_pod() {
    let options =
        KubernetesOptions { ca: AgentCa::Certificate("a certificate".into()), ..options(json!({})) };
    let pod = pod(&options, &Target::own(attempt()), &LaunchRequirements::default()).unwrap();
    assert_eq!(pod.metadata.annotations.unwrap()[CA_ANNOTATION], "a certificate");
    let volumes = pod.spec.unwrap().volumes.unwrap();
    let identity = volumes.iter().find(|it| it.name == "sqlflow-identity").unwrap();
    let sources = identity.projected.as_ref().unwrap().sources.as_ref().unwrap();
    assert!(sources.iter().all(|it| it.config_map.is_none()));
    let items = sources.iter().find_map(|it| it.downward_api.as_ref()).unwrap().items.as_ref().unwrap();
    assert_eq!(items[0].path, "ca.crt");
    let field = items[0].field_ref.as_ref().unwrap();
    assert_eq!(field.field_path, "metadata.annotations['sqlflow.org/ca']");
}

#[test]
fn owner_is_that_of_pod_and_claim() {
    let owner = Some("notebook/1".parse().unwrap());
    let options = KubernetesOptions { owner, ..options(json!({})) };
    let pod = pod(&options, &Target::own(attempt()), &LaunchRequirements::default()).unwrap();
    let claim = claim::claim(&json!({}), &attempt(), options.owner.as_ref()).unwrap();
    for metadata in [pod.metadata, claim.metadata] {
        let owners = metadata.owner_references.unwrap();
        assert_eq!((owners.len(), &*owners[0].name, &*owners[0].uid), (1, "notebook", "1"));
    }
}
