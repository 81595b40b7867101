// SPDX-License-Identifier: GPL-2.0
/*
 * rdma_test_sleeper_N: a module whose initialisation takes as long as its parameter says, and
 * which no signal ends meanwhile. The Makefile makes several of it, which differ in their names.
 *
 * Responsible for: being as stuck as a driver whose firmware does not answer. Must never hold a
 * lock of the kernel's meanwhile.
 */
#include <linux/module.h>
#include <linux/sched.h>

static unsigned int seconds = 600;
module_param(seconds, uint, 0444);
MODULE_PARM_DESC(seconds, "how long the initialisation takes, in seconds");

static int __init sleeper_init(void)
{
	schedule_timeout_uninterruptible(seconds * HZ);
	return 0;
}

static void __exit sleeper_exit(void)
{
}

module_init(sleeper_init);
module_exit(sleeper_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A module that takes its time");
