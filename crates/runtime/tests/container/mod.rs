//! The tests by subject.

mod escapes;
mod exec;
mod hostile;
mod lifecycle;
mod mounts;
mod namespaces;
mod notify;
mod process;
mod rollback;
mod spec;
mod users;

use crate::support::Test;

macro_rules! tests {
    ($($module:ident: $($name:ident)*;)*) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), $module::$name as fn()),)*)*]
    };
}

pub(crate) const TESTS: &[Test] = tests! {
    namespaces: s010_seven_kinds_differ_from_the_host s012_the_root_is_the_image_and_the_host_sees_no_mount
        s013_a_marker_of_the_host_is_nowhere s015_s016_names_are_the_containers_own s017_init_is_process_one
        s018_only_own_processes_and_init_ends_them s024_ipc_objects_stay_inside s025_host_cgroup_namespace
        s026_own_cgroup_namespace s028_a_sibling_cgroup_is_out_of_reach s029_namespaces_are_seen_by_strace
        joined_namespaces_are_the_same time_namespace_has_its_offsets;
    mounts: s014_bind_mounts_both_ways s014_read_only_is_recursive_when_asked s053_default_devices tmpfs_takes_its_options
        tmpcopyup_keeps_what_it_hides masked_and_read_only_paths read_only_root overlay_root missing_targets_are_made
        file_binds_propagation sysctls_of_own_namespaces cgroup_mount_shows_the_limits;
    users: s021_s022_ids_are_mapped s023_owners_without_chown s023_id_mapped_bind names_are_looked_up_inside
        groups_are_exact unknown_users_are_refused;
    process: environment_and_cwd capabilities_are_exact no_new_privileges limits_are_set_or_clamped oom_score_is_set_or_reported
        seccomp_denies missing_program_is_127 not_executable_is_126 path_search umask_and_streams terminal_is_a_pty
        scheduler_and_io_priority;
    spec: a_user_namespace_is_joined a_mount_namespace_is_joined contradictions_are_refused_by_field what_the_host_lacks_is_said
        s014_every_option_of_a_mount options_of_a_whole_file_system rootfs_propagation s053_devices_of_the_spec
        clocks_in_a_user_namespace domainname_by_sysctl_and_personality memory_policy_is_kept_over_exec cpus_of_an_added_process
        deadline_scheduler_with_a_hook_inside interfaces_move_with_their_addresses preserved_descriptors_are_those_asked_for;
    notify: the_listener_reaches_the_agent without_an_agent_nothing_starts;
    lifecycle: spans_cover_every_step signals_and_exit_codes pause_and_resume kill_all_and_pids limits_can_be_updated
        delete_is_thorough hooks_run_in_order a_failing_hook_undoes a_failing_hook_after_start_ends_it hooks_after_the_end_all_run hook_timeout created_waits_for_start plan_is_stable;
    exec: s161_limits_and_rights_are_alike s163_joins_every_namespace refused_when_paused_or_stopped terminal missing_program
        in_a_user_namespace joins_the_keyring;
    rollback: s155_a_fault_at_every_step_leaves_nothing s155_a_fault_at_every_step_of_an_elaborate_container
        s155_a_fault_at_every_step_of_joining s155_a_fault_at_every_step_of_exec
        s155_a_fault_at_every_step_among_the_hosts_mounts;
    escapes: cve_2015_3627_nothing_of_the_host_is_held cve_2015_3630_system_files_are_read_only
        ghsa_g54h_m393_cpwq_devices_are_denied_unless_listed cve_2022_0492_release_agent_is_out_of_reach
        cve_2023_25809_foreign_cgroups_cannot_be_written cve_2025_27612_exec_gives_no_more_than_asked
        cve_2025_52881_writes_to_proc_reach_the_kernel cve_2026_30892_exec_has_the_exact_identity
        cve_2025_47291_limits_hold_in_a_user_namespace cve_2026_47262_tables_of_users_are_bounded cve_2021_41103_state_is_private
        cve_2016_9962_who_joins_cannot_be_looked_into cve_2024_21626_a_waiting_init_holds_no_foreign_descriptor;
    hostile: cve_2015_3629_target_links_stay_inside cve_2016_8867_no_ambient_capabilities
        cve_2016_9962_init_is_not_dumpable_and_leaks_no_descriptor cve_2019_16884_no_mount_over_proc
        cve_2019_19921_proc_must_not_be_a_link cve_2021_30465_swapped_targets cve_2022_24769_nothing_is_inheritable
        cve_2024_21626_cwd_is_no_way_out cve_2024_45310_nothing_is_made_on_the_host cve_2025_31133_dev_null_is_verified
        cve_2025_52565_console_is_no_link cve_2026_41579_dev_may_be_a_link cve_2026_88265_streams_keep_their_owner
        cve_2022_0811_host_sysctls_are_refused cve_2024_9676_passwd_may_be_a_fifo cve_2019_5736_own_binary_is_out_of_reach
        cve_2021_43784_many_mappings;
};
