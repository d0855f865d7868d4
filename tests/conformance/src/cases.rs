//! The cases, by what they are about. Each is independent, makes its own container and leaves nothing.

pub mod cgroups;
pub mod exec;
pub mod files;
pub mod hooks;
pub mod lifecycle;
pub mod mounts;
pub mod namespaces;
pub mod observe;
pub mod process;
pub mod seccomp;

/// Calls a macro with the name of every case: `module::case`.
#[macro_export]
macro_rules! for_each_case {
    ($callback:ident) => {
        $callback! {
            lifecycle::goes_from_created_to_stopped, lifecycle::refuses_what_does_not_fit_the_state,
            lifecycle::refuses_bad_ids, lifecycle::created_can_be_killed_and_deleted,
            lifecycle::created_goes_when_it_is_told_to, lifecycle::run_gives_code_and_output,
            lifecycle::a_missing_program_leaves_nothing, lifecycle::changes_after_create_have_no_effect,
            lifecycle::bad_bundles_leave_nothing, lifecycle::signals_by_name_and_number,
            lifecycle::kill_all_reaches_everybody, lifecycle::delete_force_takes_everything,
            lifecycle::delete_needs_no_bundle, lifecycle::pause_and_resume, lifecycle::detached_run_lives_on,
            lifecycle::foreground_signals_reach_the_program, lifecycle::run_can_keep,
            process::arguments_environment_and_directory, process::a_missing_directory_is_made, process::user_and_groups,
            process::umask, process::capabilities_are_exactly_those, process::ambient_capabilities,
            process::no_capabilities_at_all, process::no_new_privileges, process::rlimits, process::oom_score,
            process::home_comes_from_passwd, process::console_socket, process::console_needs_a_reader,
            process::preserved_descriptors, process::listen_descriptors, process::not_executable,
            process::no_descriptor_leaks, process::pidfd_socket,
            files::read_only_root, files::masked_paths, files::read_only_paths, files::default_devices,
            files::further_devices, files::default_links, files::root_may_be_absolute, files::root_propagation,
            files::no_pivot,
            mounts::binds, mounts::bind_of_a_file, mounts::missing_source_is_refused, mounts::tmpfs_with_options,
            mounts::attributes, mounts::recursive_read_only, mounts::later_mounts_lie_on_top,
            mounts::links_stay_inside, mounts::propagation, mounts::tmpcopyup, mounts::nothing_reaches_the_host,
            mounts::cgroup_view, mounts::idmapped_bind,
            namespaces::new_ones_are_new, namespaces::others_are_the_callers, namespaces::the_hosts_mounts_are_shared,
            namespaces::joined_by_path,
            namespaces::host_name_and_domain, namespaces::user_mappings, namespaces::sysctl,
            namespaces::host_sysctl_is_refused, namespaces::time_offsets, namespaces::mappings_need_a_namespace,
            namespaces::a_path_must_be_a_namespace,
            hooks::run_in_order, hooks::read_the_state, hooks::get_their_environment, hooks::a_failure_undoes_create,
            hooks::a_late_hook_is_ended, hooks::see_the_right_mounts, hooks::poststop_after_delete,
            seccomp::errno_and_default, seccomp::arguments, seccomp::kill_process, seccomp::unknown_calls_are_skipped,
            seccomp::default_errno, seccomp::holds_for_exec_too,
            cgroups::memory_limit, cgroups::pids_limit, cgroups::cpu_limits, cgroups::devices_are_denied,
            cgroups::update_by_flags, cgroups::update_by_document, cgroups::update_refuses_nonsense,
            cgroups::goes_with_the_container, cgroups::exec_joins_a_sub_group, cgroups::unified_settings,
            exec::environment_user_and_directory, exec::codes, exec::process_document, exec::capabilities,
            exec::detached_with_pid_file, exec::terminal, exec::refused_when_paused, exec::waits_when_told_to,
            exec::groups, exec::joins_the_namespaces, exec::no_new_privileges_by_flag, exec::preserves_descriptors,
            observe::state_document, observe::list_in_every_form, observe::processes, observe::stats,
            observe::events_tell_of_memory, observe::features_document, observe::spec_to_start_from,
            observe::rootless_spec, observe::log_lines, observe::version_and_help,
        }
    };
}
