//! pids, devices, hugetlb, net_cls, net_prio, rdma, and v2 files by name.

use std::collections::BTreeMap;

use super::{Draft, Interface, Missing, Setting, Value, bad_value, not_on_v2};
use crate::controller::Controller;
use crate::device::{DeviceFilter, DeviceRule};
use crate::error::PlanError;
use crate::resources::{HugetlbLimit, RdmaLimit, Resources};

pub(super) fn pids(draft: &mut Draft<'_>, limit: Option<i64>) -> Result<(), PlanError> {
    let Some(limit) = limit else {
        return Ok(());
    };
    if limit < 0 && !draft.layout.has(Controller::Pids) {
        return Ok(());
    }
    draft.interface("pids.limit", Controller::Pids)?;
    // 0 is written as 1, as runc does: systemd refuses 0, and the first process is not forked but attached.
    let value = if limit < 0 { "max".to_owned() } else { limit.max(1).to_string() };
    draft.text("pids.limit", Controller::Pids, "pids.max", value, "the kernel was built without CONFIG_CGROUP_PIDS");
    Ok(())
}

pub(super) fn devices(draft: &mut Draft<'_>, rules: &[DeviceRule]) -> Result<(), PlanError> {
    if rules.is_empty() {
        return Ok(());
    }
    draft.interface("devices", Controller::Devices)?;
    draft.settings.push(Setting {
        limit: "devices",
        controller: Controller::Devices,
        file: "devices.list".into(),
        value: Value::Devices(DeviceFilter::from_rules(rules)?),
        missing: Missing::Fail("the kernel was built without CONFIG_CGROUP_DEVICE"),
    });
    Ok(())
}

pub(super) fn hugetlb(draft: &mut Draft<'_>, limits: &[HugetlbLimit]) -> Result<(), PlanError> {
    const LIMIT: &str = "hugetlb";
    const SIZE: &str = "this kernel has no huge pages of that size; see /sys/kernel/mm/hugepages";
    for HugetlbLimit { page_size, limit_bytes } in limits {
        let plain = !page_size.is_empty() && page_size.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !plain {
            return Err(bad_value(LIMIT, page_size, "write the page size as the kernel does: 2MB, 1GB"));
        }
        let suffix = match draft.interface(LIMIT, Controller::Hugetlb)? {
            Interface::V1 => "limit_in_bytes",
            Interface::V2 => "max",
        };
        draft.text(LIMIT, Controller::Hugetlb, format!("hugetlb.{page_size}.{suffix}"), limit_bytes, SIZE);
        // Without the limit on reservations (Linux 5.7) an over-allocation is a SIGBUS later instead of ENOMEM at once.
        draft.text(LIMIT, Controller::Hugetlb, format!("hugetlb.{page_size}.rsvd.{suffix}"), limit_bytes, SIZE);
        if let Some(last) = draft.settings.last_mut() {
            last.missing = Missing::Skip;
        }
    }
    Ok(())
}

pub(super) fn net(draft: &mut Draft<'_>, resources: &Resources) -> Result<(), PlanError> {
    const CLASS: &str = "the kernel was built without CONFIG_CGROUP_NET_CLASSID";
    const PRIORITY: &str = "the kernel was built without CONFIG_CGROUP_NET_PRIO";
    const NFT: &str = "match the container's cgroup in nftables (socket cgroupv2) instead";
    if let Some(class) = resources.net_cls_classid {
        v1_only(draft, "net_cls.classid", Controller::NetCls, NFT)?;
        draft.text("net_cls.classid", Controller::NetCls, "net_cls.classid", class, CLASS);
    }
    for (interface, priority) in &resources.net_prio {
        v1_only(draft, "net_prio", Controller::NetPrio, NFT)?;
        if interface.is_empty() || interface.len() > 15 || interface.contains([' ', '\n', '/']) {
            return Err(bad_value("net_prio", interface, "it is not the name of a network interface"));
        }
        draft.text("net_prio", Controller::NetPrio, "net_prio.ifpriomap", format!("{interface} {priority}"), PRIORITY);
    }
    Ok(())
}

fn v1_only(draft: &Draft<'_>, limit: &'static str, controller: Controller, way_out: &str) -> Result<(), PlanError> {
    if draft.layout.has(controller) {
        return Ok(());
    }
    if draft.layout.hierarchies.is_empty() {
        return Err(not_on_v2(limit, way_out));
    }
    draft.interface(limit, controller).map(drop)
}

pub(super) fn rdma(draft: &mut Draft<'_>, limits: &BTreeMap<String, RdmaLimit>) -> Result<(), PlanError> {
    const LIMIT: &str = "rdma";
    for (device, limit) in limits {
        draft.interface(LIMIT, Controller::Rdma)?;
        if device.is_empty() || device.contains([' ', '\n']) {
            return Err(bad_value(LIMIT, device, "it is not the name of an RDMA device"));
        }
        let number = |value: Option<u32>| value.map_or_else(|| "max".to_owned(), |value| value.to_string());
        let value =
            format!("{device} hca_handle={} hca_object={}", number(limit.hca_handles), number(limit.hca_objects));
        draft.text(LIMIT, Controller::Rdma, "rdma.max", value, "the kernel was built without CONFIG_CGROUP_RDMA");
    }
    Ok(())
}

pub(super) fn unified(draft: &mut Draft<'_>, files: &BTreeMap<String, String>) -> Result<(), PlanError> {
    const LIMIT: &str = "unified";
    for (file, value) in files {
        let plain = file.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        let controller = Controller::of_v2_file(file).filter(|_| plain);
        let Some(controller) = controller else {
            return Err(bad_value(LIMIT, file, "it is not the name of a cgroup v2 file"));
        };
        if matches!(file.as_str(), "cgroup.procs" | "cgroup.threads" | "cgroup.kill" | "cgroup.freeze" | "cgroup.type")
        {
            return Err(bad_value(LIMIT, file, "it moves or stops processes, it is not a limit"));
        }
        if draft.layout.unified.is_none() {
            let way_out = "use the limits by name instead of v2 files, or boot with cgroup v2".to_owned();
            return Err(PlanError::UnifiedOnV1 { way_out });
        }
        if draft.interface(LIMIT, controller)? == Interface::V1 {
            let way_out =
                format!("{file}: this host has the {controller} controller on cgroup v1; use the limit by name");
            return Err(PlanError::UnifiedOnV1 { way_out });
        }
        draft.text(LIMIT, controller, file.clone(), value, "this kernel has no such cgroup v2 file");
    }
    Ok(())
}
