//! From the spec's resources to those of the cgroup crate: the same fields, checked, plus the devices every container may use.

use berth_cgroup as cg;
use berth_oci::runtime as oci;

use crate::error::RuntimeError;

fn wrong(problem: String) -> RuntimeError {
    RuntimeError::Spec { field: "linux.resources", problem }
}

/// Resources of a new container: the spec's, with the device rules that always hold.
pub(crate) fn resources(asked: Option<&oci::LinuxResources>) -> Result<cg::Resources, RuntimeError> {
    let mut resources = match asked {
        Some(asked) => convert(asked)?,
        None => cg::Resources::default(),
    };
    resources.devices.extend(default_rules());
    Ok(resources)
}

/// Each limit of a spec as the kernel file it becomes on a host of this layout. Pure.
///
/// # Errors
/// As create: a limit this host cannot enforce.
pub fn limit_settings(layout: &cg::Layout, spec: &oci::Spec) -> Result<Vec<cg::Setting>, RuntimeError> {
    let asked = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    Ok(cg::plan(layout, &resources(asked)?)?)
}

/// Resources of an update: only what is named. What create would leave out with a warning is an error here.
pub(crate) fn update(asked: &oci::LinuxResources) -> Result<cg::Resources, RuntimeError> {
    match ignored(Some(asked)) {
        Some(_) => Err(RuntimeError::Unsupported { what: "limiting kernel memory on its own".to_owned() }),
        None => convert(asked),
    }
}

fn convert(asked: &oci::LinuxResources) -> Result<cg::Resources, RuntimeError> {
    let mut resources = cg::Resources {
        cpu: asked.cpu().as_ref().map(cpu).unwrap_or_default(),
        memory: asked.memory().as_ref().map(memory).unwrap_or_default(),
        pids_limit: asked.pids().as_ref().map(oci::LinuxPids::limit),
        block_io: asked.block_io().as_ref().map(block_io).transpose()?.unwrap_or_default(),
        ..cg::Resources::default()
    };
    for rule in asked.devices().iter().flatten() {
        resources.devices.push(device_rule(rule)?);
    }
    for limit in asked.hugepage_limits().iter().flatten() {
        let limit_bytes = u64::try_from(limit.limit()).unwrap_or(u64::MAX);
        resources.hugetlb.push(cg::HugetlbLimit { page_size: limit.page_size().clone(), limit_bytes });
    }
    if let Some(network) = asked.network() {
        resources.net_cls_classid = network.class_id();
        let priorities = network.priorities().iter().flatten();
        resources.net_prio = priorities.map(|entry| (entry.name().clone(), entry.priority())).collect();
    }
    for (device, limit) in asked.rdma().iter().flatten() {
        let limit = cg::RdmaLimit { hca_handles: limit.hca_handles(), hca_objects: limit.hca_objects() };
        resources.rdma.insert(device.clone(), limit);
    }
    resources.unified.extend(asked.unified().iter().flatten().map(|(file, value)| (file.clone(), value.clone())));
    Ok(resources)
}

/// What of the spec's resources is left out, as runc leaves it out: kernels ignore limits on kernel memory alone since 5.16, and v2
/// has none.
pub(crate) fn ignored(asked: Option<&oci::LinuxResources>) -> Option<String> {
    let memory = asked?.memory().as_ref()?;
    let is_asked = |limit: Option<i64>| limit.is_some_and(|limit| limit != 0);
    (is_asked(memory.kernel()) || is_asked(memory.kernel_tcp())).then(|| {
        "limits of kernel memory (memory.kernel, memory.kernelTCP) are ignored: kernels have none any more".to_owned()
    })
}

fn cpu(asked: &oci::LinuxCpu) -> cg::Cpu {
    cg::Cpu {
        shares: asked.shares(),
        quota_us: asked.quota(),
        period_us: asked.period(),
        burst_us: asked.burst(),
        idle: asked.idle(),
        realtime_runtime_us: asked.realtime_runtime(),
        realtime_period_us: asked.realtime_period(),
        cpus: asked.cpus().clone().unwrap_or_default(),
        mems: asked.mems().clone().unwrap_or_default(),
    }
}

fn memory(asked: &oci::LinuxMemory) -> cg::Memory {
    cg::Memory {
        limit: asked.limit(),
        reservation: asked.reservation(),
        swap: asked.swap(),
        swappiness: asked.swappiness(),
        disable_oom_killer: asked.disable_oom_killer().unwrap_or(false),
        check_before_update: asked.check_before_update().unwrap_or(false),
    }
}

fn number(value: i64) -> Result<u32, RuntimeError> {
    u32::try_from(value).map_err(|_| wrong(format!("{value} is not a device number")))
}

fn block_io(asked: &oci::LinuxBlockIo) -> Result<cg::BlockIo, RuntimeError> {
    let mut weight_devices = Vec::new();
    for device in asked.weight_device().iter().flatten() {
        weight_devices.push(cg::WeightDevice {
            major: number(device.major())?,
            minor: number(device.minor())?,
            weight: device.weight(),
            leaf_weight: device.leaf_weight(),
        });
    }
    Ok(cg::BlockIo {
        weight: asked.weight(),
        leaf_weight: asked.leaf_weight(),
        weight_devices,
        read_bps: throttle(asked.throttle_read_bps_device())?,
        write_bps: throttle(asked.throttle_write_bps_device())?,
        read_iops: throttle(asked.throttle_read_iops_device())?,
        write_iops: throttle(asked.throttle_write_iops_device())?,
    })
}

fn throttle(asked: &Option<Vec<oci::LinuxThrottleDevice>>) -> Result<Vec<cg::ThrottleDevice>, RuntimeError> {
    let convert = |device: &oci::LinuxThrottleDevice| {
        Ok(cg::ThrottleDevice { major: number(device.major())?, minor: number(device.minor())?, rate: device.rate() })
    };
    asked.iter().flatten().map(convert).collect()
}

fn device_rule(rule: &oci::LinuxDeviceCgroup) -> Result<cg::DeviceRule, RuntimeError> {
    let kind = match rule.typ().unwrap_or_default() {
        oci::LinuxDeviceType::A => cg::DeviceKind::All,
        oci::LinuxDeviceType::B => cg::DeviceKind::Block,
        oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => cg::DeviceKind::Char,
        oci::LinuxDeviceType::P => return Err(wrong("a device rule is about a FIFO".to_owned())),
    };
    // The specification's wildcard is a missing number or -1.
    let part = |value: Option<i64>| value.filter(|value| *value >= 0).map(number).transpose();
    let letters = rule.access().as_deref().unwrap_or("rwm");
    // An `a` is how cgroup v1 writes "all"; forbidding more than was meant is the safe way to read it.
    let letters = if !rule.allow() && letters.contains('a') { "rwm" } else { letters };
    let access: cg::Access = letters.parse()?;
    Ok(cg::DeviceRule { allow: rule.allow(), kind, major: part(rule.major())?, minor: part(rule.minor())?, access })
}

/// Every container may make nodes and use the default devices, terminals included; opening needs a rule.
fn default_rules() -> impl Iterator<Item = cg::DeviceRule> {
    let rule = |kind, major, minor, access| cg::DeviceRule { allow: true, kind, major, minor, access };
    let nodes = [
        rule(cg::DeviceKind::Char, None, None, cg::Access::MKNOD),
        rule(cg::DeviceKind::Block, None, None, cg::Access::MKNOD),
    ];
    let numbers: [(u32, Option<u32>); 9] = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(1)),
        (5, Some(2)),
        (136, None),
    ];
    let usable =
        numbers.into_iter().map(move |(major, minor)| rule(cg::DeviceKind::Char, Some(major), minor, cg::Access::ALL));
    nodes.into_iter().chain(usable)
}
