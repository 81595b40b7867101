// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * function.c: functions of the auxiliary bus, by which a NIC's driver says that it has an RDMA
 * personality, and a driver for them.
 *
 * Responsible for: each step from a function to an RDMA device being there by itself: a function
 * without a driver, one with a driver and no RDMA device, and one with both.
 *
 * Must never: make a function that a driver of the kernel would take for its own: the names begin
 * with this module's.
 */
#include <linux/completion.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "provider.h"

struct function {
	struct auxiliary_device auxiliary;
	struct list_head list;
	struct completion released;
	struct platform_device *parent;
	char match[AUXILIARY_NAME_SIZE];
};

/* Commands are one at a time, and only they come here: no lock. */
static LIST_HEAD(functions);
static bool driver_is_on, driver_registers;
static struct device_spec driver_spec;

static int probe(struct auxiliary_device *auxiliary, const struct auxiliary_device_id *id)
{
	if (!driver_registers)
		return 0;
	/* As drivers of NICs do it, the RDMA device is a child of what the function is of. */
	return PTR_ERR_OR_ZERO(provider_add(&driver_spec, auxiliary->dev.parent, auxiliary));
}

static void remove(struct auxiliary_device *auxiliary)
{
	/* `del` may have been there before. */
	struct provider_device *dev = ibdev_of_function(auxiliary);

	if (dev)
		provider_remove(dev);
}

static const struct auxiliary_device_id function_ids[] = {
	{ .name = KBUILD_MODNAME ".rdma" },
	{},
};

static struct auxiliary_driver function_driver = {
	.name = "rdma",
	.probe = probe,
	.remove = remove,
	.id_table = function_ids,
	.driver = {
		.probe_type = PROBE_FORCE_SYNCHRONOUS,
		.suppress_bind_attrs = true,
	},
};

static struct function *function_find(const char *match, u32 id)
{
	struct function *function;

	list_for_each_entry(function, &functions, list)
		if (function->auxiliary.id == id && !strcmp(function->match, match))
			return function;
	return NULL;
}

static void release(struct device *device)
{
	struct auxiliary_device *auxiliary = container_of(device, struct auxiliary_device, dev);

	complete(&container_of(auxiliary, struct function, auxiliary)->released);
}

/* Waits for the last who has it: this code is gone after the module. */
static void function_put(struct function *function)
{
	auxiliary_device_uninit(&function->auxiliary);
	wait_for_completion(&function->released);
	parent_remove(function->parent);
	kfree(function);
}

int function_add(const char *match, u32 id, const char *driver)
{
	struct function *function;
	int error;

	/* The bus takes all up to the last dot for the name that a driver matches. */
	if (!is_plain_name(match, AUXILIARY_NAME_SIZE - sizeof(KBUILD_MODNAME)))
		return -EINVAL;
	if (function_find(match, id))
		return -EEXIST;
	function = kzalloc(sizeof(*function), GFP_KERNEL);
	if (!function)
		return -ENOMEM;
	function->parent = parent_add(driver);
	if (IS_ERR(function->parent)) {
		error = PTR_ERR(function->parent);
		kfree(function);
		return error;
	}
	init_completion(&function->released);
	strscpy(function->match, match, sizeof(function->match));
	function->auxiliary.name = function->match;
	function->auxiliary.id = id;
	function->auxiliary.dev.parent = &function->parent->dev;
	function->auxiliary.dev.release = release;
	error = auxiliary_device_init(&function->auxiliary);
	if (error) {
		parent_remove(function->parent);
		kfree(function);
		return error;
	}
	error = auxiliary_device_add(&function->auxiliary);
	if (error) {
		function_put(function);
		return error;
	}
	list_add_tail(&function->list, &functions);
	return 0;
}

static void function_take_away(struct function *function)
{
	list_del(&function->list);
	auxiliary_device_delete(&function->auxiliary);
	function_put(function);
}

int function_remove(const char *match, u32 id)
{
	struct function *function = function_find(match, id);

	if (!function)
		return -ENOENT;
	function_take_away(function);
	return 0;
}

int function_driver_on(const struct device_spec *spec)
{
	int error;

	if (driver_is_on)
		return -EEXIST;
	driver_registers = spec;
	if (spec)
		driver_spec = *spec;
	error = auxiliary_driver_register(&function_driver);
	driver_is_on = !error;
	return error;
}

int function_driver_off(void)
{
	if (!driver_is_on)
		return -ENOENT;
	auxiliary_driver_unregister(&function_driver);
	driver_is_on = false;
	return 0;
}

void functions_exit(void)
{
	struct function *function, *next;

	function_driver_off();
	list_for_each_entry_safe(function, next, &functions, list)
		function_take_away(function);
}
