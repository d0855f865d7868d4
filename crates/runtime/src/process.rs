//! A process of the spec, checked and made ready: everything between namespaces and exec.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::path::PathBuf;

use berth_oci::runtime::{
    Capabilities, IOPriorityClass, Linux, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, PosixRlimitType, Process, Scheduler,
};
use berth_sys::process::SchedulerAttributes;
use rustix::process::Resource;

use crate::error::RuntimeError;
use crate::labels::Label;
use crate::memory_policy::MemoryPolicy;
use crate::number_list;
use crate::plan::{Action, Stage, StepList};
use crate::user::UserPlan;

/// One rlimit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limit {
    pub(crate) name: &'static str,
    pub(crate) resource: Resource,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// The five sets as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CapabilityPlan {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

/// CPUs of an added process before and after it enters the container's cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Affinity {
    pub(crate) initial: Option<Vec<usize>>,
    pub(crate) last: Option<Vec<usize>>,
}

/// What a process that is added later has from the container, unless its own document says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inherited {
    /// `process.execCPUAffinity`
    #[serde(default, skip_serializing_if = "Affinity::is_empty")]
    pub(crate) affinity: Affinity,
    /// As personality(2) takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) personality: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_policy: Option<MemoryPolicy>,
    /// Whether it has no session keyring of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) keeps_keyring: bool,
}

impl Inherited {
    /// # Errors
    /// `InvalidArgument` for what is not valid.
    pub(crate) fn of_linux(linux: Option<&Linux>, affinity: Affinity) -> Result<Self, RuntimeError> {
        let personality = linux.and_then(|linux| linux.personality().as_ref()).map(personality).transpose()?;
        let policy = linux.and_then(|linux| linux.memory_policy().as_ref());
        let memory_policy = policy.map(MemoryPolicy::new).transpose()?;
        Ok(Self { affinity, personality, memory_policy, keeps_keyring: false })
    }

    /// The steps of the kernel's settings that exec keeps.
    pub(crate) fn steps(&self, list: &mut StepList) {
        if let Some(persona) = self.personality {
            let name = if persona == PER_LINUX32 { "LINUX32" } else { "LINUX" };
            list.push(Stage::Init, Action::SetPersonality(persona), name, "linux.personality");
        }
        if let Some(policy) = &self.memory_policy {
            let text = policy.text.clone();
            list.push(Stage::Init, Action::SetMemoryPolicy(policy.clone()), text.trim(), "linux.memoryPolicy");
        }
    }
}

const PER_LINUX32: u32 = 8;

fn personality(asked: &LinuxPersonality) -> Result<u32, RuntimeError> {
    if asked.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        let problem = "has flags, and none are defined".to_owned();
        return Err(RuntimeError::Spec { field: "linux.personality", problem });
    }
    Ok(match asked.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
    })
}

impl Affinity {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn new(process: &Process) -> Result<Self, RuntimeError> {
        let list = |text: Option<&str>| {
            let text = text.map(str::trim).filter(|text| !text.is_empty());
            let problem = || format!("{:?} is not a list of CPUs such as 0-3,7", text.unwrap_or_default());
            let wrong = || RuntimeError::Spec { field: "process.execCPUAffinity", problem: problem() };
            text.map(|text| number_list::parse(text).ok_or_else(wrong)).transpose()
        };
        let Some(asked) = process.exec_cpu_affinity() else { return Ok(Self::default()) };
        Ok(Self { initial: list(asked.initial())?, last: list(asked.last())? })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ProcessPlan {
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<CString>,
    pub(crate) cwd: PathBuf,
    pub(crate) user: UserPlan,
    pub(crate) umask: Option<u32>,
    pub(crate) capabilities: Option<CapabilityPlan>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score: Option<i32>,
    pub(crate) terminal: bool,
    pub(crate) scheduler: Option<SchedulerAttributes>,
    /// Class and level.
    pub(crate) io_priority: Option<(u8, u8)>,
    pub(crate) labels: Vec<Label>,
    /// Of processes added later; init's is the cgroup's business.
    pub(crate) affinity: Affinity,
}

impl ProcessPlan {
    pub(crate) fn new(process: &Process, annotations: &HashMap<String, String>) -> Result<Self, RuntimeError> {
        let arguments = strings("process.args", process.args().as_deref().unwrap_or_default())?;
        if arguments.first().is_none_or(|argument| argument.is_empty()) {
            return Err(RuntimeError::Spec { field: "process.args", problem: "no program is named".to_owned() });
        }
        if !process.cwd().is_absolute() || process.cwd().as_os_str().as_encoded_bytes().contains(&0) {
            let problem = format!("{} is not an absolute path", process.cwd().display());
            return Err(RuntimeError::Spec { field: "process.cwd", problem });
        }
        let oom_score = process.oom_score_adj();
        if oom_score.is_some_and(|score| !(-1000..=1000).contains(&score)) {
            let problem = "is not between -1000 and 1000".to_owned();
            return Err(RuntimeError::Spec { field: "process.oomScoreAdj", problem });
        }
        Ok(Self {
            arguments,
            environment: environment(process.env().as_deref().unwrap_or_default())?,
            cwd: process.cwd().clone(),
            user: UserPlan::new(process.user(), annotations)?,
            umask: process.user().umask(),
            capabilities: process.capabilities().as_ref().map(capabilities),
            limits: limits(process)?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score,
            terminal: process.terminal().unwrap_or(false),
            scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
            io_priority: io_priority(process)?,
            labels: labels(process)?,
            affinity: Affinity::new(process)?,
        })
    }

    /// `argv[0]` for messages.
    pub(crate) fn program_text(&self) -> String {
        self.arguments.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What start and exec do alike before the wait.
    pub(crate) fn personal_steps(&self, list: &mut StepList) {
        if self.io_priority.is_some() {
            list.push(Stage::Init, Action::SetIoPriority, "", "process.ioPriority");
        }
    }
}

fn strings(field: &'static str, texts: &[String]) -> Result<Vec<CString>, RuntimeError> {
    let convert = |text: &String| {
        CString::new(text.as_str())
            .map_err(|_| RuntimeError::Spec { field, problem: "holds a NUL character".to_owned() })
    };
    texts.iter().map(convert).collect()
}

/// Of entries with the same name the last one counts; an empty HOME is none (init then takes it from the container's passwd).
fn environment(texts: &[String]) -> Result<Vec<CString>, RuntimeError> {
    let field = "process.env";
    let mut names = HashSet::new();
    let mut kept = Vec::with_capacity(texts.len());
    for text in texts.iter().rev() {
        let problem = match text.split_once('=') {
            None => format!("{text:?} is not NAME=VALUE"),
            Some(("", _)) => format!("{text:?} has no name"),
            Some((name, value)) => {
                if names.insert(name) && (name, value) != ("HOME", "") {
                    kept.push(text.clone());
                }
                continue;
            }
        };
        return Err(RuntimeError::Spec { field, problem });
    }
    kept.reverse();
    strings(field, &kept)
}

impl ProcessPlan {
    /// Keys have a label of their own with SELinux only.
    pub(crate) fn keyring_label(&self) -> Option<Label> {
        self.labels.iter().find(|label| matches!(label, Label::SeLinux(_))).cloned()
    }
}

fn labels(process: &Process) -> Result<Vec<Label>, RuntimeError> {
    // "unconfined" is what a process without a profile is.
    let profile = process.apparmor_profile().as_ref().filter(|name| *name != "unconfined");
    let labels = [Label::new(Label::AppArmor, profile)?, Label::new(Label::SeLinux, process.selinux_label().as_ref())?];
    Ok(labels.into_iter().flatten().collect())
}

fn capabilities(sets: &berth_oci::runtime::LinuxCapabilities) -> CapabilityPlan {
    let bits = |set: &Option<Capabilities>| {
        set.iter().flatten().fold(0_u64, |bits, capability| {
            let name = capability.to_string();
            let number = berth_types::capability::NAMES.iter().position(|known| *known == name);
            bits | number.map_or(0, |number| 1 << number)
        })
    };
    CapabilityPlan {
        bounding: bits(sets.bounding()),
        effective: bits(sets.effective()),
        permitted: bits(sets.permitted()),
        inheritable: bits(sets.inheritable()),
        ambient: bits(sets.ambient()),
    }
}

/// Names of the capabilities in the bounding set, as seccomp profiles write them.
pub(crate) fn capability_names(plan: Option<&CapabilityPlan>) -> Vec<String> {
    let bits = plan.map_or(0, |plan| plan.bounding);
    let named = berth_types::capability::NAMES.iter().enumerate().filter(|(number, _)| bits & (1 << number) != 0);
    named.map(|(_, name)| format!("CAP_{name}")).collect()
}

fn limits(process: &Process) -> Result<Vec<Limit>, RuntimeError> {
    let field = "process.rlimits";
    let mut limits: Vec<Limit> = Vec::new();
    for entry in process.rlimits().as_deref().unwrap_or_default() {
        let (name, resource) = resource(entry.typ());
        if limits.iter().any(|limit| limit.name == name) {
            return Err(RuntimeError::Spec { field, problem: format!("{name} is there twice") });
        }
        if entry.soft() > entry.hard() {
            return Err(RuntimeError::Spec { field, problem: format!("{name} has a soft limit above its hard one") });
        }
        limits.push(Limit { name, resource, soft: entry.soft(), hard: entry.hard() });
    }
    Ok(limits)
}

fn resource(kind: PosixRlimitType) -> (&'static str, Resource) {
    match kind {
        PosixRlimitType::RlimitCpu => ("RLIMIT_CPU", Resource::Cpu),
        PosixRlimitType::RlimitFsize => ("RLIMIT_FSIZE", Resource::Fsize),
        PosixRlimitType::RlimitData => ("RLIMIT_DATA", Resource::Data),
        PosixRlimitType::RlimitStack => ("RLIMIT_STACK", Resource::Stack),
        PosixRlimitType::RlimitCore => ("RLIMIT_CORE", Resource::Core),
        PosixRlimitType::RlimitRss => ("RLIMIT_RSS", Resource::Rss),
        PosixRlimitType::RlimitNproc => ("RLIMIT_NPROC", Resource::Nproc),
        PosixRlimitType::RlimitNofile => ("RLIMIT_NOFILE", Resource::Nofile),
        PosixRlimitType::RlimitMemlock => ("RLIMIT_MEMLOCK", Resource::Memlock),
        PosixRlimitType::RlimitAs => ("RLIMIT_AS", Resource::As),
        PosixRlimitType::RlimitLocks => ("RLIMIT_LOCKS", Resource::Locks),
        PosixRlimitType::RlimitSigpending => ("RLIMIT_SIGPENDING", Resource::Sigpending),
        PosixRlimitType::RlimitMsgqueue => ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
        PosixRlimitType::RlimitNice => ("RLIMIT_NICE", Resource::Nice),
        PosixRlimitType::RlimitRtprio => ("RLIMIT_RTPRIO", Resource::Rtprio),
        PosixRlimitType::RlimitRttime => ("RLIMIT_RTTIME", Resource::Rttime),
    }
}

fn scheduler(asked: &Scheduler) -> Result<SchedulerAttributes, RuntimeError> {
    let field = "process.scheduler";
    let mut flags = 0_u64;
    for flag in asked.flags().iter().flatten() {
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin | LinuxSchedulerFlag::SchedFlagUtilClampMax => {
                return Err(RuntimeError::Unsupported { what: "clamping a scheduler's utilization".to_owned() });
            }
        };
    }
    let policy = match asked.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let priority = u32::try_from(asked.priority().unwrap_or(0))
        .map_err(|_| RuntimeError::Spec { field, problem: "has a negative priority".to_owned() })?;
    Ok(SchedulerAttributes {
        policy,
        flags,
        nice: asked.nice().unwrap_or(0),
        priority,
        runtime_ns: asked.runtime().unwrap_or(0),
        deadline_ns: asked.deadline().unwrap_or(0),
        period_ns: asked.period().unwrap_or(0),
    })
}

fn io_priority(process: &Process) -> Result<Option<(u8, u8)>, RuntimeError> {
    let Some(asked) = process.io_priority() else { return Ok(None) };
    let level = u8::try_from(asked.priority()).ok().filter(|level| *level <= 7).ok_or(RuntimeError::Spec {
        field: "process.ioPriority",
        problem: "priority is not between 0 and 7".to_owned(),
    })?;
    let class = match asked.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    Ok(Some((class, level)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affinity(initial: &str) -> Result<Affinity, RuntimeError> {
        let document = serde_json::json!({"user": {"uid": 0, "gid": 0}, "cwd": "/",
            "execCPUAffinity": {"initial": initial, "final": ""}});
        Affinity::new(&serde_json::from_value(document).unwrap())
    }

    /// runtime-spec config, "Linux Process", execCPUAffinity: "a comma-separated list, with dashes to represent ranges".
    #[test]
    fn lists_of_cpus() {
        for (text, expected) in [("0-3,7", vec![0, 1, 2, 3, 7]), ("5", vec![5]), ("1,0-1", vec![0, 1])] {
            assert_eq!(affinity(text).unwrap(), Affinity { initial: Some(expected), last: None }, "{text}");
        }
        // Empty is as if it were not there.
        assert!(affinity("").unwrap().is_empty());
        for text in [
            "0-3,,7",
            "4-6.,8",
            ",1,2",
            "-",
            "0-",
            "-1",
            "3-1",
            "0-l1",
            "0-3,i",
            "1024",
            "0-1-2",
            "+1",
            "99999999999999999999",
        ] {
            let error = affinity(text).unwrap_err().to_string();
            assert!(error.contains("process.execCPUAffinity"), "{text}: {error}");
        }
    }
}
