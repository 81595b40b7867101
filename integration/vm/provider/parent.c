// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * parent.c: what stands in for the PCI functions that RDMA devices are children of.
 *
 * Responsible for: platform devices, each bound to a platform driver of any name, so that
 * `device/driver` of an RDMA device says what a test wants it to say.
 *
 * Must never: know anything of RDMA.
 */
#include <linux/ctype.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "provider.h"

struct parent_driver {
	struct platform_driver driver;
	struct list_head list;
	char name[PLATFORM_NAME_SIZE];
};

/* Commands are one at a time, and only they come here: no lock. */
static LIST_HEAD(drivers);
static u32 parents_made;

/* Fit to be a file's name and to be printed by a format: what users of names do with them. */
bool is_plain_name(const char *name, size_t size)
{
	size_t length = strnlen(name, size);
	size_t i;

	if (!length || length == size || name[0] == '.')
		return false;
	for (i = 0; i < length; i++)
		if (!isalnum(name[i]) && !strchr("_-.", name[i]))
			return false;
	return true;
}

static int driver_ensure(const char *name)
{
	struct parent_driver *driver;
	int error;

	list_for_each_entry(driver, &drivers, list)
		if (!strcmp(driver->name, name))
			return 0;
	driver = kzalloc(sizeof(*driver), GFP_KERNEL);
	if (!driver)
		return -ENOMEM;
	strscpy(driver->name, name, sizeof(driver->name));
	driver->driver.driver.name = driver->name;
	driver->driver.driver.probe_type = PROBE_FORCE_SYNCHRONOUS;
	/* Who unbinds a parent by hand would leave an RDMA device that has no driver. */
	driver->driver.driver.suppress_bind_attrs = true;
	error = platform_driver_register(&driver->driver);
	if (error) {
		kfree(driver);
		return error;
	}
	list_add(&driver->list, &drivers);
	return 0;
}

struct platform_device *parent_add(const char *driver)
{
	struct platform_device *parent;
	int error;

	if (!is_plain_name(driver, PLATFORM_NAME_SIZE))
		return ERR_PTR(-EINVAL);
	error = driver_ensure(driver);
	if (error)
		return ERR_PTR(error);
	parent = platform_device_register_simple(driver, parents_made++, NULL, 0);
	if (!IS_ERR(parent) && !parent->dev.driver) {
		platform_device_unregister(parent);
		return ERR_PTR(-ENODEV);
	}
	return parent;
}

void parent_remove(struct platform_device *parent)
{
	platform_device_unregister(parent);
}

void parent_drivers_remove(void)
{
	struct parent_driver *driver, *next;

	list_for_each_entry_safe(driver, next, &drivers, list) {
		platform_driver_unregister(&driver->driver);
		list_del(&driver->list);
		kfree(driver);
	}
}
