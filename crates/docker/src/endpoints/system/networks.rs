//! `GET /networks` and `/networks/{id}`: the networks every instance has.

use axum::Json;
use axum::extract::{Path, State};
use berth_engine::api::NetworkSummary;
use berth_types::ErrorClass;
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult};
use crate::state::Face;
use crate::wire::inspect::time_text;

fn into_wire(network: &NetworkSummary) -> Value {
    let containers: Map<String, Value> = network
        .containers
        .iter()
        .map(|(id, (name, endpoint, mac, ipv4, ipv6))| {
            let entry = json!({ "Name": name, "EndpointID": endpoint, "MacAddress": mac, "IPv4Address": ipv4, "IPv6Address": ipv6 });
            (id.clone(), entry)
        })
        .collect();
    let subnets: Vec<Value> =
        network.subnets.iter().map(|(subnet, gateway)| json!({ "Subnet": subnet, "Gateway": gateway })).collect();
    let mut wire = json!({
        "Name": network.name,
        "Id": network.id,
        "Created": time_text(network.created),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": true,
        "EnableIPv6": network.subnets.len() > 1,
        "IPAM": { "Driver": "default", "Options": null, "Config": subnets },
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": {},
        "Labels": {},
    });
    // Since API 1.52. Docker counts the network's, the gateway's and the broadcast address as used.
    if let (Some((in_use, free)), Some((subnet, _))) = (network.addresses, network.subnets.first()) {
        wire["Status"] = json!({ "IPAM": { "Subnets": {
            subnet.as_str(): { "IPsInUse": in_use.saturating_add(3), "DynamicIPsAvailable": free } } } });
    }
    wire
}

pub(super) async fn list(State(face): State<Face>) -> ApiResult<Json<Value>> {
    let networks = face.engine.networks().await?;
    Ok(Json(networks.iter().map(into_wire).collect()))
}

pub(super) async fn inspect(State(face): State<Face>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let networks = face.engine.networks().await?;
    let is_it = |n: &&NetworkSummary| n.name == id || n.id == id || (id.len() >= 4 && n.id.starts_with(&id));
    match networks.iter().find(is_it) {
        Some(network) => Ok(Json(into_wire(network))),
        None => Err(ApiError::new(ErrorClass::NotFound, format!("network {id} not found"))),
    }
}
