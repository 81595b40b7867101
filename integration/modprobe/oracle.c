/*
 * oracle: libkmod's own answers, for the planner's to be compared with.
 *
 * Reads commands from standard input, one a line:
 *   C MODULE_DIR COMMAND_LINE_FILE [CONFIG_DIR...]   from here on, this configuration
 *   Q NAME    what `modprobe -D NAME` prints, and the modules that the name stands for
 *   T COUNT   makes the plans of all names on the lines that follow, COUNT times over, and
 *             prints the nanoseconds that one time over took, the least of all
 *
 * Responsible for: asking libkmod exactly as modprobe does.  Must never load anything: every
 * plan is a dry run.  libkmod reads the kernel command line of the running machine, so
 * open() is taken over for that one file.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The part of libkmod.h that is used here, so that no header has to be installed. */
struct kmod_ctx;
struct kmod_module;
struct kmod_list;
enum { PROBE_IGNORE_LOADED = 0x8, PROBE_DRY_RUN = 0x10, PROBE_ALIAS_BLACKLIST = 0x40000 };
enum { MODULE_BUILTIN = 0 };
struct kmod_ctx *kmod_new(const char *dirname, const char *const *config_paths);
struct kmod_ctx *kmod_unref(struct kmod_ctx *ctx);
void kmod_set_log_priority(struct kmod_ctx *ctx, int priority);
int kmod_load_resources(struct kmod_ctx *ctx);
int kmod_module_new_from_lookup(struct kmod_ctx *ctx, const char *alias, struct kmod_list **list);
struct kmod_list *kmod_list_next(const struct kmod_list *list, const struct kmod_list *curr);
struct kmod_module *kmod_module_get_module(const struct kmod_list *entry);
struct kmod_module *kmod_module_unref(struct kmod_module *mod);
int kmod_module_unref_list(struct kmod_list *list);
const char *kmod_module_get_name(const struct kmod_module *mod);
const char *kmod_module_get_path(const struct kmod_module *mod);
const char *kmod_module_get_install_commands(const struct kmod_module *mod);
int kmod_module_get_initstate(const struct kmod_module *mod);
int kmod_module_probe_insert_module(
	struct kmod_module *mod, unsigned int flags, const char *extra_options,
	int (*run_install)(struct kmod_module *, const char *, void *), const void *data,
	void (*print_action)(struct kmod_module *, bool, const char *));

static const char *command_line = "/dev/null";

static int open_really(const char *path, int flags, mode_t mode)
{
	static int (*next)(const char *, int, ...);

	if (next == NULL)
		next = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
	return next(strcmp(path, "/proc/cmdline") == 0 ? command_line : path, flags, mode);
}

#define TAKE_OVER(name)                                                                  \
	int name(const char *path, int flags, ...)                                       \
	{                                                                                \
		va_list arguments;                                                       \
		mode_t mode = 0;                                                         \
                                                                                         \
		va_start(arguments, flags);                                              \
		if (flags & (O_CREAT | O_TMPFILE))                                       \
			mode = va_arg(arguments, mode_t);                                \
		va_end(arguments);                                                       \
		return open_really(path, flags, mode);                                   \
	}
TAKE_OVER(open)
TAKE_OVER(open64)

static void print(struct kmod_module *mod, bool install, const char *options)
{
	const char *path = kmod_module_get_path(mod);

	if (install)
		printf("install %s %s\n", kmod_module_get_install_commands(mod), options);
	else if (path != NULL)
		printf("insmod %s %s\n", path, options);
	else if (kmod_module_get_initstate(mod) == MODULE_BUILTIN)
		printf("builtin %s\n", kmod_module_get_name(mod));
}

static void discard(struct kmod_module *mod, bool install, const char *options)
{
	(void)mod, (void)install, (void)options;
}

static void answer(struct kmod_ctx *ctx, const char *name, bool say)
{
	struct kmod_list *list = NULL, *entry;

	if (kmod_module_new_from_lookup(ctx, name, &list) < 0)
		return;
	for (entry = list; entry != NULL; entry = kmod_list_next(list, entry)) {
		struct kmod_module *mod = kmod_module_get_module(entry);

		if (say)
			printf("module %s\n", kmod_module_get_name(mod));
		kmod_module_probe_insert_module(
			mod, PROBE_DRY_RUN | PROBE_IGNORE_LOADED | PROBE_ALIAS_BLACKLIST, NULL,
			NULL, NULL, say ? print : discard);
		kmod_module_unref(mod);
	}
	kmod_module_unref_list(list);
}

static struct kmod_ctx *configure(char *words)
{
	static char module_dir[4096], kept_line[4096];
	static const char *directories[64];
	char *dir = strtok(words, " "), *line = strtok(NULL, " ");
	size_t count = 0;
	struct kmod_ctx *ctx;

	snprintf(module_dir, sizeof(module_dir), "%s", dir);
	snprintf(kept_line, sizeof(kept_line), "%s", line);
	command_line = kept_line;
	while (count < 63 && (directories[count] = strtok(NULL, " ")) != NULL)
		count++;
	directories[count] = NULL;
	ctx = kmod_new(module_dir, directories);
	if (ctx == NULL)
		abort();
	kmod_set_log_priority(ctx, 0);
	kmod_load_resources(ctx);
	return ctx;
}

static long long nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void measure(struct kmod_ctx *ctx, int count)
{
	char **names = NULL, *line = NULL;
	size_t known = 0, size = 0;
	long long least = -1;
	ssize_t len;

	while ((len = getline(&line, &size, stdin)) > 0) {
		line[len - 1] = '\0';
		names = realloc(names, (known + 1) * sizeof(*names));
		names[known++] = strdup(line);
	}
	while (count-- > 0) {
		long long start = nanoseconds(), took;

		for (size_t i = 0; i < known; i++)
			answer(ctx, names[i], false);
		took = nanoseconds() - start;
		if (least < 0 || took < least)
			least = took;
	}
	printf("%lld\n", least);
}

int main(void)
{
	struct kmod_ctx *ctx = NULL;
	char *line = NULL;
	size_t size = 0;
	ssize_t len;

	while ((len = getline(&line, &size, stdin)) > 1) {
		line[len - 1] = '\0';
		switch (line[0]) {
		case 'C':
			kmod_unref(ctx);
			ctx = configure(line + 2);
			break;
		case 'Q':
			printf("== %s\n", line + 2);
			answer(ctx, line + 2, true);
			break;
		case 'T':
			measure(ctx, atoi(line + 2));
			break;
		default:
			return 2;
		}
	}
	kmod_unref(ctx);
	return 0;
}
