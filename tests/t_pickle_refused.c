/* No pickle names anything that runs: a long list of callables, those that published attacks on checkpoints use and those that
 * look like torch's own, in every spelling and through every opcode that could reach them, is refused; beside it stands the
 * whole list of what is known. The pickles are built here, from Lib/pickletools.py. */
#include <stdio.h>
#include <string.h>

#include "io/ckpt.h"
#include "io/pickle.h"
#include "test.h"

/* Module and name, divided by a blank. */
static const char *const refused[] = {
    "os system", "os popen", "os execv", "os execve", "os execl", "os spawnv", "os spawnl", "os fork", "os remove", "os unlink",
    "os rename", "os putenv", "os startfile", "os kill", "os mkdir", "os rmdir", "os removedirs", "os chmod", "os open",
    "os write", "os getcwd", "os _exit", "posix system", "posix popen", "posix execv", "posix unlink", "posix fork", "nt system",
    "nt popen", "nt unlink", "ntpath join", "posixpath join", "subprocess Popen", "subprocess call", "subprocess run",
    "subprocess check_call", "subprocess check_output", "subprocess getoutput", "subprocess getstatusoutput",
    "commands getoutput", "popen2 popen2", "popen2 popen3", "pty spawn", "pty fork", "shutil rmtree", "shutil copyfile",
    "shutil move", "shutil make_archive", "pathlib Path", "pathlib PosixPath", "tempfile mktemp", "glob glob", "platform popen",
    "builtins eval", "builtins exec", "builtins compile", "builtins open", "builtins __import__", "builtins getattr",
    "builtins setattr", "builtins delattr", "builtins globals", "builtins locals", "builtins vars", "builtins dir",
    "builtins apply", "builtins execfile", "builtins breakpoint", "builtins input", "builtins print", "builtins help",
    "builtins map", "builtins filter", "builtins type", "builtins object", "builtins super", "builtins property",
    "builtins classmethod", "builtins bytes", "builtins bytearray", "builtins memoryview", "builtins dict", "builtins list",
    "builtins tuple", "builtins frozenset", "builtins int", "builtins float", "builtins str", "builtins bool", "builtins complex",
    "builtins slice", "builtins range", "builtins exit", "builtins quit", "builtins SystemExit", "__builtin__ eval",
    "__builtin__ exec", "__builtin__ execfile", "__builtin__ apply", "__builtin__ compile", "__builtin__ file",
    "__builtin__ open", "__builtin__ getattr", "__builtin__ __import__", "__builtin__ reduce", "__builtin__ input",
    "__builtin__ raw_input", "__builtin__ globals", "__builtin__ object", "__main__ payload", "__main__ __builtins__", "sys exit",
    "sys modules", "sys setprofile", "sys settrace", "sys path", "sys stdout", "importlib import_module", "importlib __import__",
    "importlib reload", "importlib.util spec_from_file_location", "importlib._bootstrap _gcd_import", "imp load_source",
    "imp load_dynamic", "imp find_module", "runpy run_path", "runpy run_module", "runpy _run_code", "pkgutil get_loader",
    "pkgutil resolve_name", "zipimport zipimporter", "site addsitedir", "code interact", "code InteractiveInterpreter",
    "codeop compile_command", "bdb Bdb", "pdb run", "pdb Pdb", "cProfile run", "profile run", "timeit timeit", "trace Trace",
    "doctest debug_script", "dis dis", "inspect getsource", "types FunctionType", "types CodeType", "types ModuleType",
    "types LambdaType", "types MethodType", "types SimpleNamespace", "marshal loads", "marshal load", "pickle loads",
    "pickle load", "pickle Unpickler", "_pickle loads", "_pickle load", "cPickle loads", "cPickle load", "dill loads",
    "dill._dill _create_code", "dill._dill _import_module", "cloudpickle loads", "cloudpickle.cloudpickle _make_skeleton_class",
    "joblib load", "shelve open", "copy copy", "copy deepcopy", "copyreg _reconstructor", "copyreg __newobj__",
    "copyreg __newobj_ex__", "copyreg add_extension", "copyreg dispatch_table", "copy_reg _reconstructor", "functools partial",
    "functools reduce", "functools partialmethod", "functools cached_property", "_functools partial", "_functools reduce",
    "operator attrgetter", "operator itemgetter", "operator methodcaller", "operator call", "_operator attrgetter",
    "_operator methodcaller", "itertools chain", "itertools starmap", "collections namedtuple", "collections defaultdict",
    "collections Counter", "collections deque", "collections ChainMap", "collections OrderedDict.fromkeys",
    "collections OrderedDict.__reduce__", "_collections OrderedDict", "_codecs decode", "_codecs register", "_codecs lookup",
    "codecs encode", "codecs decode", "codecs open", "io open", "io FileIO", "io BytesIO", "_io FileIO", "_io open",
    "_io BytesIO", "fileinput FileInput", "linecache getline", "mmap mmap", "ctypes CDLL", "ctypes cdll", "ctypes PyDLL",
    "ctypes string_at", "ctypes memmove", "_ctypes dlopen", "cffi FFI", "socket socket", "socket create_connection",
    "_socket socket", "ssl wrap_socket", "socketserver TCPServer", "asyncio create_subprocess_shell",
    "asyncio.unix_events _UnixSubprocessTransport", "select select", "signal signal", "atexit register", "threading Thread",
    "_thread start_new_thread", "thread start_new_thread", "multiprocessing Process", "multiprocessing.util spawnv_passfds",
    "multiprocessing.reduction DupFd", "concurrent.futures ProcessPoolExecutor", "webbrowser open", "webbrowser open_new",
    "urllib urlopen", "urllib.request urlopen", "urllib.request urlretrieve", "urllib2 urlopen", "http.client HTTPSConnection",
    "httplib HTTPConnection", "ftplib FTP", "smtplib SMTP", "telnetlib Telnet", "poplib POP3", "imaplib IMAP4",
    "xmlrpc.client ServerProxy", "requests get", "requests post", "requests.api get", "aiohttp.client ClientSession", "httpx get",
    "pip main", "pip._internal.cli.main main", "ensurepip bootstrap", "venv create", "distutils.core run_setup",
    "setuptools sandbox", "idlelib.pyshell ModifiedInterpreter", "idlelib.run Executive", "lib2to3.pgen2.pgen ParserGenerator",
    "lib2to3.pgen2.grammar Grammar.loads", "unittest.mock _importer", "test.support script_helper", "logging.config fileConfig",
    "logging FileHandler", "ast literal_eval", "getpass getuser", "readline read_history_file", "winreg SetValue", "msvcrt getch",
    "_winapi CreateProcess", "uuid _get_command_stdout", "gzip open", "bz2 open", "lzma open", "zipfile ZipFile", "tarfile open",
    "sqlite3 connect", "numpy load", "numpy loads", "numpy fromfile", "numpy memmap", "numpy save", "numpy ndarray",
    "numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct", "numpy.core._multiarray_umath _reconstruct",
    "numpy.core.numeric _frombuffer", "numpy.testing._private.utils runstring", "numpy.distutils.exec_command exec_command",
    "numpy.f2py.crackfortran myeval", "numpy.f2py.capi_maps load_f2cmap_file", "numpy.lib.npyio load",
    "numpy.random._pickle __randomstate_ctor", "scipy.io loadmat", "pandas eval", "pandas read_pickle",
    "pandas.core.computation.eval eval", "yaml load", "torch load", "torch save", "torch.load load", "torch._load load",
    "torch compile", "torch tensor", "torch from_file", "torch from_numpy", "torch Tensor", "torch nn.Module", "torch jit.load",
    "torch hub.load", "torch.jit load", "torch.jit._serialization load", "torch.jit._script script", "torch.hub load",
    "torch.hub _load_local", "torch.hub download_url_to_file", "torch.serialization load", "torch.serialization _load",
    "torch.serialization _legacy_load", "torch.storage _load_from_bytes", "torch.storage TypedStorage",
    "torch.storage _warn_typed_storage_removal", "torch.package PackageImporter", "torch.classes load_library",
    "torch.ops load_library", "torch._C _from_dlpack", "torch._C _import_ir_module", "torch._C import_ir_module",
    "torch._C PyTorchFileReader", "torch._utils _rebuild_sparse_tensor", "torch._utils _rebuild_qtensor",
    "torch._utils _rebuild_meta_tensor_no_storage", "torch._utils _rebuild_nested_tensor", "torch._utils _import_dotted_name",
    "torch._utils _rebuild_device_tensor_from_numpy", "torch._utils _rebuild_wrapper_subclass",
    "torch._utils _rebuild_xla_tensor", "torch._tensor _rebuild_from_type_v2", "torch._tensor _rebuild_from_type",
    "torch._dynamo.guards GuardBuilder.get", "torch._inductor.codecache compile_file", "torch._ops load_library",
    "torch.utils._config_module ConfigModule.load_config", "torch.utils.cpp_extension load",
    "torch.utils.cpp_extension load_inline", "torch.utils.data DataLoader",
    "torch.utils.data.datapipes.utils.decoder basichandlers", "torch.utils.bottleneck.__main__ run_autograd_prof",
    "torch.utils.collect_env run", "torch.utils.model_zoo load_url", "torch.multiprocessing spawn",
    "torch.multiprocessing.reductions rebuild_storage_fd", "torch.multiprocessing.reductions rebuild_cuda_tensor",
    "torch.distributed.rpc rpc_sync", "torch.distributed.launcher.api elastic_launch", "torch.nn Module",
    "torch.nn.modules.linear Linear", "torch.nn.modules.container Sequential", "torch.nn.parameter Parameter",
    "torch.nn.parameter UninitializedParameter", "torch.fx.graph_module reduce_graph_module", "torch.fx GraphModule",
    "torch.onnx export", "torch.autograd Function", "torch.cuda.FloatStorage FloatStorage",
    "torch.fx.experimental.symbolic_shapes ShapeEnv.evaluate_guards_expression", "torchvision.datasets.utils download_url",
    "pytorch_lightning Trainer", "pytorch_lightning.callbacks.model_checkpoint ModelCheckpoint.__init__",
    "pytorch_lightning.utilities.parsing AttributeDict", "omegaconf.dictconfig DictConfig", "fsspec open",
    "tensorflow.io read_file", "keras.models load_model", "transformers AutoModel.from_pretrained", "diffusers DiffusionPipeline",
    "huggingface_hub hf_hub_download", "accelerate load_checkpoint", "gradio launch", "jinja2 Template", "flask Flask",
    "django.core.management execute_from_command_line",
};

/* "" when the bytes open as the object of a stream, else the message, one line that names the file. */
static const char *says(const char *p, size_t n)
{
    static char msg[640];
    static const char head[] =
        "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\0\0\0little_endian\x88s.";
    sm_buf b = {0};
    sm_mem mem = {0};
    sm_err e = {0};
    sm_buf_add(&b, head, sizeof head - 1);
    sm_buf_add(&b, p, n);
    sm_buf_add(&b, "\x80\x02].", 4);
    sm_ckpt *f = sm_ckpt_open_mem(b.data, b.len, "evil.pt", &mem, &e);
    CHECKF(f ? !e.code : e.code == SUMI_E_FORMAT && !strncmp(e.msg, "evil.pt: ", 9) && !strchr(e.msg, '\n'), "%d '%s'", e.code,
           e.msg);
    snprintf(msg, sizeof msg, "%s", e.msg);
    sm_ckpt_close(f);
    CHECKF(mem.total == 0, "%zu bytes leaked after '%s'", mem.total, msg);
    sm_buf_free(&b);
    return msg;
}

/* ---- spellings --------------------------------------------------------------------------------------------------- */

typedef struct global { char module[80], name[80]; } global;

static global split(const char *text)
{
    global g;
    int n = (int)strcspn(text, " ");
    snprintf(g.module, sizeof g.module, "%.*s", n, text);
    snprintf(g.name, sizeof g.name, "%s", text + n + 1);
    return g;
}

/* A text as the opcode `op` pushes it: 4, 1 or 8 bytes of length in front. */
static void put_text(sm_buf *b, unsigned char op, const char *s)
{
    uint64_t n = strlen(s);
    sm_buf_add(b, &op, 1);
    sm_buf_add(b, &n, op == 'X' || op == 'T' ? 4 : op == 0x8d ? 8 : 1);
    sm_buf_add(b, s, n);
}

/* How a pickle may push a global. NAMED: by the lines of GLOBAL; STACK_...: by two texts and STACK_GLOBAL. */
enum { NAMED, STACK_SHORT, STACK_LONG, STACK_EIGHT, STACK_PYTHON2, STACK_MEMO, STACK_MEMOIZED, STACK_POPPED, SPELLINGS };

static void put_global(sm_buf *b, int spelling, const global *g)
{
    static const unsigned char ops[SPELLINGS] = {[STACK_SHORT] = 0x8c, [STACK_LONG] = 'X', [STACK_EIGHT] = 0x8d,
                                                 [STACK_PYTHON2] = 'U'};
    if (spelling == NAMED) {
        sm_buf_fmt(b, "c%s\n%s\n", g->module, g->name);
    } else if (ops[spelling]) {
        put_text(b, ops[spelling], g->module);
        put_text(b, ops[spelling], g->name);
        sm_buf_add(b, "\x93", 1);
    } else if (spelling == STACK_MEMO) { /* the other way round, and fetched */
        put_text(b, 'X', g->name);
        sm_buf_add(b, "q\1", 2);
        put_text(b, 'X', g->module);
        sm_buf_add(b, "q\2" "00h\2h\1\x93", 9);
    } else if (spelling == STACK_MEMOIZED) {
        put_text(b, 0x8c, g->module);
        sm_buf_add(b, "\x94", 1);
        put_text(b, 0x8c, g->name);
        sm_buf_add(b, "\x94\x93", 2);
    } else { /* harmless texts in between, taken off again */
        put_text(b, 'X', g->module);
        sm_buf_add(b, "(NN1N0", 6);
        put_text(b, 'X', g->name);
        sm_buf_add(b, "20\x93", 3);
    }
}

/* What a pickle may do with it: text before and after. */
static const struct { const char *name, *before, *after; size_t nbefore, nafter; } uses[] = {
#define USE(NAME, BEFORE, AFTER) {NAME, BEFORE, AFTER, sizeof BEFORE - 1, sizeof AFTER - 1}
    USE("alone", "", "."),
    USE("REDUCE", "", "X\2\0\0\0ls\x85R."),
    USE("REDUCE of nothing", "", ")R."),
    USE("BUILD", "", "}b."),
    USE("BUILD of two states", "", "N}\x86" "b."),
    USE("NEWOBJ", "", "X\2\0\0\0ls\x85\x81."),
    USE("NEWOBJ_EX", "", "X\2\0\0\0ls\x85}\x92."),
    USE("OBJ", "(", "X\2\0\0\0lso."),
    USE("in a list", "]", "a."),
    USE("as a key", "}", "Ns."),
    USE("as a value", "}X\1\0\0\0a", "s."),
    USE("as a tensor's storage", "}X\1\0\0\0t" "ctorch._utils\n_rebuild_tensor_v2\n(", "K\0))\x89NtRs."),
    USE("as a storage's type", "(X\7\0\0\0storage", "X\1\0\0\0" "0X\3\0\0\0cpuK\1tQ."),
    USE("as a persistent reference", "", "Q."),
    USE("as OrderedDict's argument", "ccollections\nOrderedDict\n", "\x85R."),
    USE("as the state of a dict", "ccollections\nOrderedDict\n)R", "b."),
    USE("behind the memo", "", "r\1\0\0\0" "0j\1\0\0\0)R."),
    USE("thrown away", "N", "0."),
    USE("as a parameter's maker", "ctorch._utils\n_rebuild_parameter\n(", "\x88}tR."),
    USE("as a parameter's state", "ctorch._utils\n_rebuild_parameter_with_state\n(}\x88}", "tR."),
};

static void check_use(const global *g, int spelling, size_t use)
{
    char want[200];
    sm_buf b = {0};
    sm_buf_add(&b, "\x80\x04", 2);
    sm_buf_add(&b, uses[use].before, uses[use].nbefore);
    put_global(&b, spelling, g);
    sm_buf_add(&b, uses[use].after, uses[use].nafter);
    snprintf(want, sizeof want, "names %s.%s, which is refused", g->module, g->name);
    const char *msg = says(b.data, b.len);
    CHECKF(strstr(msg, want) != NULL, "%s, spelling %d: '%s', expected '%s'", uses[use].name, spelling, msg, want);
    sm_buf_free(&b);
}

TEST(pickle_refused_globals_in_every_spelling)
{
    for (size_t i = 0; i < SM_COUNT(refused); i++) {
        global g = split(refused[i]);
        CHECKF(!sm_pk_global_find(g.module, strlen(g.module), g.name, strlen(g.name)), "%s is known", refused[i]);
        for (int spelling = 0; spelling < SPELLINGS; spelling++)
            check_use(&g, spelling, 0);
    }
}

TEST(pickle_refused_globals_in_every_use)
{
    for (size_t i = 0; i < SM_COUNT(refused); i += i < 60 ? 1 : 7)
        for (size_t use = 0; use < SM_COUNT(uses); use++) {
            global g = split(refused[i]);
            check_use(&g, NAMED, use);
            check_use(&g, STACK_SHORT, use);
        }
}

/* Opcodes that make or call something and that torch.save never writes, each refused by its number whatever it names. */
TEST(pickle_refused_opcodes)
{
    static const struct { const char *text; size_t n; int op; } cases[] = {
#define OP(TEXT, NUMBER) {TEXT, sizeof TEXT - 1, NUMBER}
        OP("\x80\x02(ios\nsystem\n.", 'i'), OP("\x80\x02(X\2\0\0\0lsios\nsystem\n.", 'i'),
        OP("\x80\x02(icollections\nOrderedDict\n.", 'i'),
        OP("(ios\nsystem\n.", 'i'), OP("\x80\x02(ccollections\nOrderedDict\no.", 'o'), OP("\x80\x02(cbuiltins\nset\n]o.", 'o'),
        OP("\x80\x04" "ccollections\nOrderedDict\n)}\x92.", 0x92), OP("\x80\x02\x82\1.", 0x82), OP("\x80\x02\x83\1\0.", 0x83),
        OP("\x80\x02\x84\1\0\0\0.", 0x84), OP("\x80\x02Ptorch\n.", 'P'), OP("\x80\x02S'os'\n.", 'S'), OP("\x80\x02Vos\n.", 'V'),
        OP("\x80\x02" "F1.5\n.", 'F'),
        OP("\x80\x02(Vos\nVsystem\n\x93.", 'V'), OP("\x80\x02Np0\ng0\n.", 'p'), OP("\x80\x02g0\n.", 'g'),
        OP("\x80\x05\x97.", 0x97), OP("\x80\x05N\x98.", 0x98),
    };
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        char want[40];
        const char *msg = says(cases[i].text, cases[i].n);
        snprintf(want, sizeof want, "opcode 0x%02x", cases[i].op);
        CHECKF(strstr(msg, want) && strstr(msg, "refused"), "case %zu: %s", i, msg);
    }
    /* Of all bytes, these alone are opcodes here. */
    static const char known[] =
        "JKMqrhj(012NILGXTUBC)tldae]}suRcbQ.\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x93\x94\x95\x96";
    for (int op = 0; op < 256; op++) {
        char text[] = {(char)op, '.'};
        bool go = memchr(known, op, sizeof known - 1) != NULL;
        CHECKF(go == !strstr(says(text, sizeof text), "pickle byte 0: opcode"), "0x%02x", op);
    }
}

/* ---- what is known ----------------------------------------------------------------------------------------------- */

/* All of it; a row more in the table must be a row more here. None of them runs anything: labels and types cannot be called. */
static const char *const allowed[] = {
    "torch FloatStorage", "torch HalfStorage", "torch BFloat16Storage", "torch DoubleStorage", "torch IntStorage",
    "torch LongStorage", "torch ShortStorage", "torch CharStorage", "torch ByteStorage", "torch BoolStorage",
    "torch ComplexFloatStorage", "torch UntypedStorage", "torch.storage UntypedStorage", "torch float32", "torch float16",
    "torch bfloat16", "torch float64", "torch int32", "torch int64", "torch int16", "torch int8", "torch uint8", "torch bool",
    "torch complex64", "torch uint16", "torch uint32", "torch uint64", "torch float8_e4m3fn", "torch float8_e5m2",
    "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state", "torch Size", "torch device",
    "collections OrderedDict", "builtins set", "__builtin__ set", "_codecs encode", "numpy dtype", "numpy.core.multiarray scalar",
    "numpy._core.multiarray scalar", "pytorch_lightning.callbacks.model_checkpoint ModelCheckpoint",
};

static bool found(const char *module, size_t nmodule, const char *name, size_t nname)
{
    return sm_pk_global_find(module, nmodule, name, nname);
}

/* Modules and names of both lists crossed: only the pairs of the list above are known. */
TEST(pickle_known_globals_are_these)
{
    int known = 0;
    for (size_t i = 0; i < SM_COUNT(allowed) + SM_COUNT(refused); i++)
        for (size_t k = 0; k < SM_COUNT(allowed) + SM_COUNT(refused); k++) {
            global m = split(i < SM_COUNT(allowed) ? allowed[i] : refused[i - SM_COUNT(allowed)]);
            global n = split(k < SM_COUNT(allowed) ? allowed[k] : refused[k - SM_COUNT(allowed)]);
            char both[200];
            bool listed = false;
            snprintf(both, sizeof both, "%s %s", m.module, n.name);
            for (size_t j = 0; j < SM_COUNT(allowed) && !listed; j++)
                listed = !strcmp(allowed[j], both);
            CHECKF(found(m.module, strlen(m.module), n.name, strlen(n.name)) == listed, "%s.%s", m.module, n.name);
            known += listed && i == k;
        }
    CHECKF(known == (int)SM_COUNT(allowed), "%d known", known);
}

/* A name that is nearly one of them is none: letters more or less, of the other case, a blank, a NUL, what looks alike. */
TEST(pickle_nearly_known_globals)
{
    for (size_t i = 0; i < SM_COUNT(allowed); i++) {
        global g = split(allowed[i]);
        size_t m = strlen(g.module), n = strlen(g.name);
        char odd[100];
        CHECKF(found(g.module, m, g.name, n), "%s", allowed[i]);
        CHECK(!found(g.module, m - 1, g.name, n) && !found(g.module, m, g.name, n - 1) && !found(g.module, 0, g.name, n) &&
              !found(g.module, m, g.name, 0));
        CHECK(!found(g.module, m + 1, g.name, n) && !found(g.module, m, g.name, n + 1)); /* with its NUL */
        CHECK(!found(g.name, n, g.module, m));
        static const char *const forms[] = {"%s ", " %s", "%s\r", "%s.", ".%s", "%s.__init__", "%s.__globals__", "__main__.%s",
                                            "%s\xc2\xa0", "\xef\xbb\xbf%s"};
        for (size_t k = 0; k < SM_COUNT(forms); k++) {
            int len = snprintf(odd, sizeof odd, forms[k], g.name);
            CHECKF(!found(g.module, m, odd, (size_t)len), "%s.%s", g.module, odd);
            len = snprintf(odd, sizeof odd, forms[k], g.module);
            CHECKF(!found(odd, (size_t)len, g.name, n), "%s.%s", odd, g.name);
        }
        for (size_t k = 0; k < n; k++) { /* one bit of one letter: case, control characters, neighbours */
            memcpy(odd, g.name, n);
            odd[k] ^= 0x20;
            CHECKF(!found(g.module, m, odd, n), "%s.%.*s", g.module, (int)n, odd);
        }
    }
}
